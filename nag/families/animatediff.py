"""AnimateDiff: Stable Diffusion's cross attention, where every frame of a video is a row of its own."""

from __future__ import annotations

from typing import Any

from nag.errors import UnsupportedPipeline
from nag.families.unet import StableDiffusion

__all__ = ["AnimateDiff"]


class AnimateDiff(StableDiffusion):
    name = "AnimateDiff"
    models = "SD1.5 and SDXL with motion adapters, PIA, SparseCtrl, ControlNet"
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("UNetMotionModel",)

    def fits(self, denoiser: Any) -> bool:  # noqa: ARG002 (of either form)
        return True

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if getattr(pipe, "free_noise_enabled", False):
            raise UnsupportedPipeline("FreeNoise gives each frame a prompt of its own; disable it first")

    def frames(self, call: dict[str, Any]) -> int:
        return int(call["sample"].shape[2])
