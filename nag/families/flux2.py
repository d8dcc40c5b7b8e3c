"""Flux.2 and Flux.2 Klein: joint attention, text first; single blocks run attention and MLP in one projection.

Text tokens are counted on the fourth rotary axis, so the negative's count from zero again. Reference images are image
tokens; Klein KV keeps their keys after the first step, and those stand where the tokens stood.
"""

from __future__ import annotations

from typing import ClassVar

from nag.attention import AttentionCall
from nag.families.arguments import REPEATED, Argument
from nag.families.flux_like import FluxLike
from nag.guided_step import GuidedStep
from nag.processors import JointAttentionProcessor

__all__ = ["Flux2"]


class _KeptKeysProcessor(JointAttentionProcessor):
    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        # Reference images may be keys alone; if they have queries of their own, those attend in a later call.
        return call.key.shape[2] >= call.query.shape[2] > step.text_here


class Flux2(FluxLike):
    name = "Flux.2"
    models = "dev; Klein, its inpainting and KV forms"
    denoiser_types = ("Flux2Transformer2DModel",)
    processor_class = _KeptKeysProcessor
    processors = (
        "Flux2AttnProcessor",
        "Flux2ParallelSelfAttnProcessor",
        "Flux2KVAttnProcessor",
        "Flux2KVParallelSelfAttnProcessor",
    )
    context_parallel = denoiser_types
    counted = (3,)
    join_note = "not of Klein KV, whose cache is state of one request"
    arguments: ClassVar[dict[str, Argument]] = {"img_ids": REPEATED, "txt_ids": REPEATED}
