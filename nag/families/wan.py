"""Wan and what is built on it: cross attention to UMT5's tokens, whose keys do not change with the timestep.

Image-to-video forms of 2.1 attend to an image too, by keys of its own that stay as they are. Wan 2.2 denoises with two
models in turn, of which either may be absent.
"""

from __future__ import annotations

from typing import ClassVar

from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.params import NAGParams
from nag.processors import WanSplitProcessor

__all__ = ["Wan"]


class Wan(Family):
    name = "Wan"
    models = "2.1, 2.2: T2V, I2V, TI2V, VACE, Animate; ChronoEdit, Lucy-Edit"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "arXiv 2505.21179, table 5"
    attention = "cross"
    denoiser_types: ClassVar[tuple[str, ...]] = (
        "WanTransformer3DModel",
        "WanVACETransformer3DModel",
        "WanAnimateTransformer3DModel",
        "ChronoEditTransformer3DModel",
    )
    attention_modules = ("blocks.*.attn2", "vace_blocks.*.attn2")
    processor_class = WanSplitProcessor
    processors: ClassVar[tuple[str, ...]] = ("WanAttnProcessor", "WanAttnProcessor2_0")
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("control_hidden_states", "pose_hidden_states", "face_pixel_values"), ROWS),
        "control_hidden_states_scale": SHARED,
    }
    cfg = "separate"
    encoded = ("embeds",)
