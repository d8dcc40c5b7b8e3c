"""What the families share whose cross attention is diffusers' plain `Attention`, run by its plain processors."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from nag.current import CurrentStep
from nag.families.family import Family
from nag.processor_swap import class_names
from nag.processors import CrossAttentionProcessor, GuidedProcessor

__all__ = ["PlainCrossAttention"]

#: Processors of the same attention as AttnProcessor2_0, sliced or by kernels of their own.
SAME_BY_OTHER_MEANS = {"AttnProcessor", "SlicedAttnProcessor", "XFormersAttnProcessor"}


class PlainCrossAttention(Family):
    """Text keys depend on the prompt alone, and processors that cannot be answered have one that can in their place."""

    attention = "cross"
    processors = ("AttnProcessor2_0", "FusedAttnProcessor2_0", *sorted(SAME_BY_OTHER_MEANS))
    caches_text_kv = True

    def attentions(self, denoiser: Any) -> list[Any]:
        return [m for m in denoiser.modules() if isinstance(m, Attention) and m.is_cross_attention]

    def processor(self, current: CurrentStep, plain: Any) -> GuidedProcessor:
        fallback = AttnProcessor2_0() if class_names(plain) & SAME_BY_OTHER_MEANS else None
        return (self.processor_class or CrossAttentionProcessor)(current, plain, fallback)
