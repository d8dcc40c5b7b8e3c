"""Cross attention whose output is the difference of two attentions to the same values (arXiv 2410.05258)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.guided_step import GuidedStep
from nag.processors.cross import CrossAttentionProcessor, keys_of
from nag.processors.guided import Values, guide_heads

__all__ = ["DifferentialCrossProcessor"]


class DifferentialCrossProcessor(CrossAttentionProcessor):
    """Guides the difference as a whole: the original processor is handed 0 and −Z, whose difference is Z."""

    attention_calls = 2

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        count = step.token_layout.positive
        guided = call.for_rows(step.rows)
        key, value, mask = keys_of(guided, slice(count, None))
        positive = guided.with_kv(*keys_of(guided, slice(count)))
        parts: tuple[Tensor, Callable[[], Tensor], Callable[[Values], Tensor]] = (
            call.with_kv(*keys_of(call, slice(count)))(),
            guided.with_kv(key, value, mask),
            lambda flip: positive.with_more_kv(key, flip(value), mask)(),
        )
        first = step.scratch.pop("first of two", None)
        if first is None:
            step.scratch["first of two"] = parts
            return torch.zeros_like(parts[0])
        z, z_negative, z_flipped = parts
        return -guide_heads(
            first[0] - z, lambda: first[1]() - z_negative(), lambda flip: first[2](flip) - z_flipped(flip), step
        )
