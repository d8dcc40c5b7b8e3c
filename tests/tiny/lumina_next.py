"""Lumina-Next."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel, LuminaPipeline
from torch import nn

from tests.tiny.common import WIDTH, Case, strengthen, vae
from tests.tiny.gemma import gemma2, gemma_tokenizer


def lumina_next(seed: int = 0) -> LuminaPipeline:
    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=WIDTH,
    )
    strengthen(transformer, 3.0)
    for layer in transformer.layers:
        nn.init.normal_(layer.gate)  # closed to the text as made
    nn.init.zeros_(transformer.pad_token)
    return LuminaPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(8),
        text_encoder=gemma2(tokenizer, layers=3),
        tokenizer=tokenizer,
    )


CASES = (
    Case(
        "lumina-next",
        lumina_next,
        options={"guidance_scale": 1.0, "height": 64, "width": 64, "clean_caption": False},
        cfg={"guidance_scale": 4.0, "negative_prompt": ["a triangle", "a square"]},
        conditional_rows=(True, True, False, False),
        text=("encoder_hidden_states", "encoder_mask"),
        modulation="time_caption_embed",
    ),
)
