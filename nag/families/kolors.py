"""Kolors: SDXL's UNet, whose text is ChatGLM's, projected token by token on its way in."""

from __future__ import annotations

from typing import Any

from nag.families.unet import SDXL, unet_form
from nag.processor_swap import original

__all__ = ["Kolors"]


class Kolors(SDXL):
    name = "Kolors"
    models = "Kolors, with ControlNet or PAG"
    source = "as SDXL, not tuned"

    def fits(self, denoiser: Any) -> bool:
        return unet_form(original(denoiser)) == "kolors"
