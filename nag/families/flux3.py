"""Flux.3: text and image pass blocks of their own, then joint ones, text first; single blocks hold attention and MLP.

Text tokens are counted on the fourth rotary axis, so the negative's count from zero again. Reference images are image
tokens. Step-distilled models are the same, told a timestep more.
"""

from __future__ import annotations

from typing import ClassVar

from nag.families.arguments import NUMBERS, ROWS, SHARED, Argument
from nag.families.flux_like import FluxLike

__all__ = ["Flux3"]


class Flux3(FluxLike):
    name = "Flux.3"
    models = "dev, distilled; with reference images or without"
    denoiser_types = ("Flux3Transformer2DModel",)
    attention_modules = ("txt_mode_blocks.*.attn", "single_transformer_blocks.*.attn")
    processors = ("Flux3AttnProcessor",)
    arguments: ClassVar[dict[str, Argument]] = {
        "image_cond_hidden_states": ROWS,
        "image_cond_ids": SHARED,
        "target_timestep": NUMBERS,
    }
    counted = (3,)
