"""Helios."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HeliosPipeline, HeliosTransformer3DModel

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.video import spare_ftfy, umt5
from tests.tiny.wan import FRAMES, LATENTS, OPTIONS, wan_vae

spare_ftfy(HeliosPipeline)


def helios(seed: int = 0) -> HeliosPipeline:
    torch.manual_seed(seed)
    transformer = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=LATENTS,
        out_channels=LATENTS,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 4, 4),
    )
    strengthen(transformer, 4.0)
    return HeliosPipeline(
        transformer=transformer.eval(), vae=wan_vae(), scheduler=FlowMatchEulerDiscreteScheduler(), **umt5()
    )


CASES = (
    Case(
        "helios",
        helios,
        options=OPTIONS | {"history_sizes": [4, 2, 1], "num_latent_frames_per_chunk": 2},
        takes="without copies",
        **FRAMES,
    ),
)
