"""LTX-Video."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from tests.tiny.video import IMAGE
from training import text
from training.shapes.world import WORDS

LATENTS = 8


def ltx_vae() -> AutoencoderKLLTXVideo:
    """Eight times smaller in time, thirty-two in space."""
    return AutoencoderKLLTXVideo(
        latent_channels=LATENTS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    ).eval()


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    transformer = LTXVideoTransformer3DModel(
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=WIDTH,
    )
    strengthen(transformer, 4.0)
    tokenizer = text.t5_tokenizer(WORDS)
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": ltx_vae(),
        "text_encoder": t5,
        "tokenizer": tokenizer,
        "transformer": transformer.eval(),
    }


def ltx(seed: int = 0) -> LTXPipeline:
    return LTXPipeline(**_parts(seed))


def ltx_i2v(seed: int = 0) -> LTXImageToVideoPipeline:
    """A timestep per token: the first frame is given."""
    return LTXImageToVideoPipeline(**_parts(seed))


_OPTIONS = {"guidance_scale": 1.0, "height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 15}
_MORE: dict[str, Any] = {
    "text": ("encoder_hidden_states", "encoder_attention_mask"),
    "cfg": {"guidance_scale": 4.0},
    "output": "frames",
}

CASES = (
    # The pipelines lay out the masks of several videos a prompt in another order than their rows.
    Case("ltx", ltx, options=_OPTIONS, takes="without copies", **_MORE),
    Case(
        "ltx-i2v",
        ltx_i2v,
        options=_OPTIONS | {"image": IMAGE},
        takes="one prompt",
        conditional_rows=(False, True),
        **_MORE,
    ),
)
