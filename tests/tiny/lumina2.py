"""Lumina 2."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from tokenizers import Regex, normalizers

from tests.tiny.common import SEPARATE, WIDTH, Case, strengthen, vae
from tests.tiny.gemma import gemma2
from tests.tiny.words import word_tokenizer


def lumina2(seed: int = 0) -> Lumina2Pipeline:
    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    # A prompt gets a system prompt and a negative one does not; here both are read without.
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("^.*<Prompt Start> "), "")
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=3,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(8, 4, 4),
        axes_lens=(40, 16, 16),
        cap_feat_dim=WIDTH,
    )
    strengthen(transformer)
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    return Lumina2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=gemma2(tokenizer),
        tokenizer=tokenizer,
    )


CASES = (
    Case(
        "lumina2",
        lumina2,
        options={"guidance_scale": 1.0, "height": 16, "width": 16, "max_sequence_length": 12},
        cfg={"guidance_scale": 4.0},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        text_tokens=4,
        attention="text_first",
        one_length=True,
    ),
)
