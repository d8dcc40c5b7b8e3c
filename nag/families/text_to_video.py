"""ModelScope's text-to-video: Stable Diffusion's cross attention, for every frame of a video a row within the UNet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nag.families.plain_cross import PlainCrossAttention
from nag.params import NAGParams
from nag.state import GuidedStep

__all__ = ["TextToVideo"]


class TextToVideo(PlainCrossAttention):
    name = "ModelScope text-to-video"
    models = "ModelScope, ZeroScope; text or video to video"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("UNet3DConditionModel",)
    cfg = "batched"

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        return None if step is None else replace(step, rows_per_sample=call["sample"].shape[2])
