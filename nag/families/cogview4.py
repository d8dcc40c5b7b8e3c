"""CogView4, CogView3-Plus and EasyAnimate: joint attention, text first, without rotary positions of the text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nag.errors import UnsupportedPipeline
from nag.families.arguments import ROWS, Argument
from nag.families.family import Family

__all__ = ["CogView3Plus", "CogView4", "EasyAnimate"]


class CogView4(Family):
    name = "CogView4"
    models = "CogView4-6B, Control"
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


class EasyAnimate(Family):
    name = "EasyAnimate"
    models = "5.1: text, image and control to video"
    attention = "joint"
    denoiser_types = ("EasyAnimateTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processors = ("EasyAnimateAttnProcessor2_0",)
    arguments: ClassVar[dict[str, Argument]] = {"inpaint_latents": ROWS, "control_latents": ROWS}
    cfg = "batched"

    def check_denoiser(self, denoiser: Any) -> None:
        if denoiser.text_proj_t5 is not None:
            raise UnsupportedPipeline("this EasyAnimate reads T5's tokens behind its own; only one text is guided")
