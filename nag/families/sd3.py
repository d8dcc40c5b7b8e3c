"""Stable Diffusion 3 and 3.5: joint attention, image first, text without positions.

The last block computes no text output and takes part like the others. The second attention of the medium model's dual
blocks is of the image alone and stays plain. The pooled prompt stays the positive's, as in the authors' code.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nag.errors import UnsupportedPipeline
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.params import NAGParams

__all__ = ["StableDiffusion3"]


class StableDiffusion3(Family):
    name = "Stable Diffusion 3"
    models = "SD3, SD3.5 Large, Large Turbo, Medium"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.125)
    source = "arXiv 2505.21179, table 5"
    attention = "joint"
    denoiser_types = ("SD3Transformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processors = ("JointAttnProcessor2_0", "FusedJointAttnProcessor2_0", "SD3IPAdapterJointAttnProcessor2_0")
    text_last = True
    cfg = "batched"
    encoded = ("embeds", "", "pooled")
    encode_arguments: ClassVar[dict[str, Any]] = {"prompt_2": None, "prompt_3": None}
    notes = "equation 7, the positive's pooled prompt, as the authors"

    def check(self, pipe: Any) -> None:
        super().check(pipe)
        if hasattr(type(pipe), "do_perturbed_attention_guidance"):  # an instance raises before its first call
            raise UnsupportedPipeline("perturbed attention guidance puts its own processors on the model at each call")

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        # The call of skip-layer guidance is the prompt's own rows alone, within a run of CFG.
        if call.get("skip_layers") is not None:
            return slice(0, len(call["encoder_hidden_states"]))
        return super().rows(pipe, state, call)
