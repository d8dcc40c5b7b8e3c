"""Helios: Wan's cross attention, where only the frames being denoised read the prompt and the history does not."""

from __future__ import annotations

from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["Helios"]


class Helios(Family):
    name = "Helios"
    models = "T2V, I2V, V2V, pyramid"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    denoiser_types = ("HeliosTransformer3DModel",)
    attention_modules = ("blocks.*.attn2",)
    processors = ("HeliosAttnProcessor",)
    caches_text_kv = True
    cfg = "separate"
