"""Joint attention where the model itself masks no padding, or not that of two prompts: the packing knows it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.packing import Packing
from nag.processors.joint import JointAttentionProcessor
from nag.session import Negative, Step

__all__ = ["MaskedAsPacked", "MaskedPacking", "masked_packing"]


@dataclass(frozen=True, eq=False)
class MaskedPacking(Packing):
    """With the tokens of both prompts that are not padding, (B, L)."""

    seen: Tensor = field(default_factory=lambda: torch.empty(0, 0))


def masked_packing(plain: Packing, of_positive: Tensor | None, negative: Negative) -> Packing:
    """`plain` where neither prompt is padded. of_positive: (B, L), 1 at its tokens; None where all are."""
    if of_positive is None and negative.mask is None:
        return plain
    of_negative = negative.seen.bool()
    if of_positive is None:
        of_positive = of_negative.new_ones(len(of_negative), plain.positive)
    seen = torch.cat([of_positive.bool(), of_negative], dim=1)
    return MaskedPacking(plain.positive, plain.negative, plain.text_last, plain.shared, seen)


class MaskedAsPacked(JointAttentionProcessor):
    """Puts the packing's mask in the place of the model's."""

    def answer(self, call: AttentionCall, step: Step) -> Tensor:
        packing = step.packing
        if not isinstance(packing, MaskedPacking):
            return super().answer(replace(call, attn_mask=None), step)
        seen = packing.seen
        rest = seen.new_ones(len(seen), call.key.shape[2] - packing.text - packing.shared)
        seen = torch.cat(
            [rest, seen] if packing.text_last else [seen.new_ones(len(seen), packing.shared), seen, rest], 1
        )
        return super().answer(replace(call, attn_mask=seen[:, None, None]), step)
