"""EasyAnimate: joint attention, text first, with rotary positions of the video alone and no mask."""

from __future__ import annotations

from typing import Any, ClassVar

from nag.errors import UnsupportedPipeline
from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["EasyAnimate"]


class EasyAnimate(Family):
    name = "EasyAnimate"
    models = "5.1: text, image and control to video"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("EasyAnimateTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processors = ("EasyAnimateAttnProcessor2_0",)
    arguments: ClassVar[dict[str, Argument]] = {"inpaint_latents": ROWS, "control_latents": ROWS}
    cfg = "batched"

    def check_denoiser(self, denoiser: Any) -> None:
        if denoiser.text_proj_t5 is not None:
            raise UnsupportedPipeline("this EasyAnimate reads T5's tokens behind its own; only one text is guided")
