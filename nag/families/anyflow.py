"""AnyFlow: Wan distilled to any number of steps, whole or chunk by chunk (FAR).

FAR reads each finished chunk once more to keep its keys for the chunks that follow. Nothing is denoised there, so those
calls stay plain.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nag.families.arguments import NUMBERS, STATE, Argument
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.params import NAGParams

__all__ = ["AnyFlow"]


class AnyFlow(Family):
    name = "AnyFlow"
    models = "T2V; FAR: text, image and video to video"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    denoiser_types = ("AnyFlowTransformer3DModel", "AnyFlowFARTransformer3DModel")
    attention_modules = ("blocks.*.attn2",)
    processors = ("AnyFlowCrossAttnProcessor",)
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {"r_timestep": NUMBERS, "kv_cache_flag": STATE}
    join_note = "not of FAR, whose cache is state of one request"
    cfg = "batched"

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        if (call.get("kv_cache_flag") or {}).get("is_cache_step"):
            return None
        return super().rows(pipe, state, call)
