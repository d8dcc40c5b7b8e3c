"""Z-Image."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from tests.tiny.common import WIDTH, Case, strengthen, vae
from tests.tiny.words import word_tokenizer


def z_image(seed: int = 0) -> ZImagePipeline:
    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    # The pipeline writes the template into the caller's own list of prompts, so it must be one that may come twice.
    tokenizer.chat_template = "{{ messages[0].content }}"
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 16, 16],
    )
    strengthen(transformer)
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):
        nn.init.normal_(pad)
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=WIDTH // 2,
            initializer_range=0.5,
        )
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )


CASES = (
    Case(
        "z-image",
        z_image,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "max_sequence_length": 96},
        cfg={"guidance_scale": 4.0},
        conditional_rows=(True, True, False, False),
        text=("cap_feats",),
        text_tokens=32,
        attention="text_last",
    ),
)
