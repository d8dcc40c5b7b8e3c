"""DreamLite: SD's UNet by another name. Its pipelines encode the prompt and CFG's negative in one call, as rows that
they lay out by hand, two or three per image."""

from __future__ import annotations

from typing import Any

from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["DreamLite"]


class DreamLite(Family):
    name = "DreamLite"
    models = "DreamLite, DreamLite-mobile"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.5)
    source = "as SDXL, not tuned"
    attention = "cross"
    denoiser_types = ("DreamLiteUNetModel",)
    processors = ("DreamLiteAttnProcessor2_0",)
    cfg = "batched"
    refused = "its pipelines encode the prompt and CFG's negative as rows of one call, and tell nobody which is which"

    def attentions(self, denoiser: Any) -> list[Any]:
        raise NotImplementedError
