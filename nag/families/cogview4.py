"""CogView4 and CogView3-Plus: joint attention, text first, without rotary positions of the text; one kind of block."""

from __future__ import annotations

from typing import ClassVar, Literal

from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["CogView3Plus", "CogView4"]


class CogView4(Family):
    name = "CogView4"
    models = "CogView4-6B, Control"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("CogView4Transformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processors = ("CogView4AttnProcessor",)
    denoiser_mask_arg: ClassVar[str | None] = "attention_mask"
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(
        ("encoder_hidden_states", "attention_mask", "original_size", "target_size", "crop_coords"), ROWS
    )
    cfg: ClassVar[Literal["batched", "separate"]] = "separate"


class CogView3Plus(CogView4):
    name = "CogView3-Plus"
    models = "CogView3-Plus-3B"
    denoiser_types = ("CogView3PlusTransformer2DModel",)
    processors = ("CogVideoXAttnProcessor2_0",)
    denoiser_mask_arg = None
    cfg = "batched"
