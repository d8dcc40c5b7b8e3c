"""Kolors: SDXL's UNet, whose text is ChatGLM's, projected token by token on its way in."""

from __future__ import annotations

from typing import Any

from nag.families.swapping import original
from nag.families.unet import SDXL

__all__ = ["Kolors"]


class Kolors(SDXL):
    name = "Kolors"
    models = "Kolors, with ControlNet or PAG"
    source = "as SDXL, not tuned"

    def matches(self, pipe: Any) -> bool:
        if not super().matches(pipe):
            return False
        unet = original(pipe.unet)
        # An image adapter takes the projection's place and puts it beside its own.
        moved = getattr(unet, "text_encoder_hid_proj", None) is not None
        return moved or unet.config.encoder_hid_dim_type == "text_proj"
