"""Helios: Wan's cross attention, where only the frames being denoised read the prompt and the history does not."""

from __future__ import annotations

from typing import ClassVar

from nag.families.arguments import ROWS, SHARED, Argument
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
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("latents_history_short", "latents_history_mid", "latents_history_long"), ROWS),
        "indices_hidden_states": SHARED,
        **dict.fromkeys([f"indices_latents_history_{length}" for length in ("short", "mid", "long")], SHARED),
    }
    cfg = "separate"
