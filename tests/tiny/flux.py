"""Flux.1."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def flux(seed: int = 0, double_blocks: int = 2, single_blocks: int = 2) -> FluxPipeline:
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=double_blocks,
        num_single_layers=single_blocks,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    strengthen(transformer)
    t5 = far_apart(text.t5_encoder(t5_tokenizer, WIDTH))
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=text.clip_encoder(clip_tokenizer, WIDTH).eval(),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )


CASES = (
    Case(
        "flux",
        flux,
        options={"guidance_scale": 0.0, "height": 16, "width": 16, "max_sequence_length": 15},
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        attention="text_first",
    ),
)
