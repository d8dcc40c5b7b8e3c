"""SkyReels-V2: Wan's cross attention in models of their own, some of which denoise each frame by its own timestep.

Where frames are at different noise (diffusion forcing), the noisiest that is denoised decides whether guidance runs.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nag.families.arguments import REPEATED, Argument
from nag.families.wan import Wan
from nag.params import NAGParams

__all__ = ["SkyReelsV2"]


class SkyReelsV2(Wan):
    name = "SkyReels-V2"
    models = "T2V, I2V, diffusion forcing"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Wan 2.1, not tuned"
    denoiser_types = ("SkyReelsV2Transformer3DModel",)
    arguments: ClassVar[dict[str, Argument]] = {**Wan.arguments, "fps": REPEATED}
    processors = ("SkyReelsV2AttnProcessor", "SkyReelsV2AttnProcessor2_0")

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:  # noqa: ARG002 (the pipeline tells a row of frames)
        return float(call["timestep"].max())
