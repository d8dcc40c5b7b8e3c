"""SANA-Video, from text and from an image."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SanaImageToVideoPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.gemma import gemma2, gemma_tokenizer
from tests.tiny.wan import LATENTS, wan_vae


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    transformer = SanaVideoTransformer3DModel(
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        rope_max_seq_len=32,
    )
    strengthen(transformer, 3.0)
    return {
        "tokenizer": tokenizer,
        "text_encoder": gemma2(tokenizer),
        "vae": wan_vae(),
        "transformer": transformer.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def sana_video(seed: int = 0) -> SanaVideoPipeline:
    return SanaVideoPipeline(**_parts(seed))


def sana_image_to_video(seed: int = 0) -> SanaImageToVideoPipeline:
    return SanaImageToVideoPipeline(**_parts(seed))


_OPTIONS = {
    "guidance_scale": 1.0,
    "height": 64,
    "width": 64,
    "frames": 9,
    "max_sequence_length": 15,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
}
_FACTS: dict[str, Any] = {
    "cfg": {"guidance_scale": 4.0},
    "text": ("encoder_hidden_states", "encoder_attention_mask"),
    "output": "frames",
}

CASES = (
    Case("sanavideo", sana_video, options=_OPTIONS, **_FACTS),
    Case(
        "sanavideo-from-image",
        sana_image_to_video,
        options=_OPTIONS | {"image": torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)},
        takes="without copies",
        **_FACTS,
    ),
)
