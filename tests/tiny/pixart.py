"""PixArt-Σ and PixArt-α, which share their transformer, and PixArt-Σ under perturbed attention guidance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPAGPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from tests.tiny.common import WIDTH, Case, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
    )
    strengthen(transformer, 3.0)
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return {
        "tokenizer": tokenizer,
        "text_encoder": t5,
        "vae": vae(),
        "transformer": transformer.eval(),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
    }


def pixart(seed: int = 0) -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(**_parts(seed))


def pixart_alpha(seed: int = 0) -> PixArtAlphaPipeline:
    return PixArtAlphaPipeline(**_parts(seed))


def pixart_pag(seed: int = 0) -> PixArtSigmaPAGPipeline:
    return PixArtSigmaPAGPipeline(**_parts(seed), pag_applied_layers="blocks.1")


_OPTIONS = {
    "guidance_scale": 1.0,
    "height": 16,
    "width": 16,
    "max_sequence_length": 15,
    "use_resolution_binning": False,
    "clean_caption": False,
}
_TEXT = ("encoder_hidden_states", "encoder_attention_mask")

CASES = (
    Case("pixart", pixart, options=_OPTIONS, cfg={"guidance_scale": 4.0}, text=_TEXT),
    Case("pixart-alpha", pixart_alpha, options=_OPTIONS, cfg={"guidance_scale": 4.0}, text=_TEXT),
    Case(
        "pixart-pag",
        pixart_pag,
        options=_OPTIONS | {"pag_scale": 0.0},
        cfg={"guidance_scale": 4.0, "pag_scale": 2.0},
        conditional_rows=(False, False, True, True, False, False),
        text=_TEXT,
    ),
)
