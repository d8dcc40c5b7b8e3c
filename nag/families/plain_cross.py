"""Families whose cross attention is diffusers' plain `Attention`, run by its plain processors, and what they share.

PixArt's pipelines keep to themselves whether they run CFG: they tell it to `encode_prompt` alone. Latte attends once
for each frame; its pipelines cut a prompt's padding off, or in a batch set it to zero and read it. Of a negative it is
masked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from nag.current_step import CurrentStep
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.params import NAGParams
from nag.processor_swap import class_names
from nag.processors import CrossAttentionProcessor, GuidedProcessor
from nag.processors.cross import MaskedNegativeProcessor

__all__ = ["Latte", "PixArt", "PlainCrossAttention"]

#: Processors of the same attention as AttnProcessor2_0, sliced or by kernels of their own.
SAME_BY_OTHER_MEANS = {"AttnProcessor", "SlicedAttnProcessor", "XFormersAttnProcessor"}


class PlainCrossAttention(Family):
    """The base of these families. Processors that cannot be intercepted have a fallback that computes the same."""

    attention = "cross"
    processors = ("AttnProcessor2_0", "FusedAttnProcessor2_0", *sorted(SAME_BY_OTHER_MEANS))
    caches_text_kv = True

    def attentions(self, denoiser: Any) -> list[Any]:
        return [m for m in denoiser.modules() if isinstance(m, Attention) and m.is_cross_attention]

    def processor(self, current: CurrentStep, plain: Any) -> GuidedProcessor:
        fallback = AttnProcessor2_0() if class_names(plain) & SAME_BY_OTHER_MEANS else None
        return (self.processor_class or CrossAttentionProcessor)(current, plain, fallback)


class PixArt(PlainCrossAttention):
    name = "PixArt"
    models = "PixArt-α, PixArt-Σ"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "arXiv 2505.21179, table 5"
    denoiser_types = ("PixArtTransformer2DModel",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    cfg = "batched"
    encoded = ("embeds", "mask", "negative_embeds", "negative_mask")


class Latte(PlainCrossAttention):
    name = "Latte"
    models = "Latte-1"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as PixArt-Σ, not tuned"
    denoiser_types = ("LatteTransformer3DModel",)
    processor_class = MaskedNegativeProcessor
    negative_mask_arg = "negative_prompt_attention_mask"
    cfg = "batched"
    encodes_one_by_one = True

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        return None if step is None else replace(step, rows_per_sample=call["hidden_states"].shape[2])
