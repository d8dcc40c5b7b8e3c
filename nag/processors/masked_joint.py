"""Joint attention of models that do not mask the padding of two prompts: the layout holds the mask."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.processors.joint import JointAttentionProcessor
from nag.token_layout import TokenLayout

__all__ = ["MaskedJointProcessor", "MaskedLayout", "masked_layout"]


@dataclass(frozen=True, eq=False)
class MaskedLayout(TokenLayout):
    """A layout with a mask (B, L) of the tokens of both prompts that are not padding."""

    seen: Tensor = field(default_factory=lambda: torch.empty(0, 0))


def masked_layout(plain: TokenLayout, of_positive: Tensor | None, negative: NegativeEmbeds) -> TokenLayout:
    """Returns `plain` with a mask if a prompt is padded. of_positive: (B, L), 1 at its tokens; None if all are."""
    if of_positive is None and negative.mask is None:
        return plain
    of_negative = negative.token_mask.bool()
    if of_positive is None:
        of_positive = of_negative.new_ones(len(of_negative), plain.positive)
    seen = torch.cat([of_positive.bool(), of_negative], dim=1)
    return MaskedLayout(plain.positive, plain.negative, plain.text_last, plain.shared, seen)


class MaskedJointProcessor(JointAttentionProcessor):
    """Uses the layout's mask in place of the model's."""

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        layout = step.layout
        if not isinstance(layout, MaskedLayout):
            return super().guided_attention(replace(call, attn_mask=None), step)
        seen = layout.seen
        rest = seen.new_ones(len(seen), call.key.shape[2] - layout.text - layout.shared)
        seen = torch.cat([rest, seen] if layout.text_last else [seen.new_ones(len(seen), layout.shared), seen, rest], 1)
        return super().guided_attention(replace(call, attn_mask=seen[:, None, None]), step)
