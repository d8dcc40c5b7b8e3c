"""Cross attention: image queries against the text of one prompt; the negative is a second set of keys and values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nag.attention import AttentionCall
from nag.processors.guided import GuidedProcessor, guide_heads
from nag.session import Session, Step

__all__ = ["CrossAttentionProcessor"]


class CrossAttentionProcessor(GuidedProcessor):
    """The negative's keys and values come behind the positive's on a packed step and are kept for those that follow."""

    masks_negative = False  # whether the negative is masked in a model that reads its prompts without a mask

    def __init__(self, session: Session, plain: Any, stand_in: Any = None) -> None:
        super().__init__(session, plain, stand_in)
        self.kept: tuple[Tensor, Tensor, Tensor | None] | None = None

    def wanted(self, call: AttentionCall, step: Step) -> bool:
        # An image adapter's keys are as many as its tokens, never both prompts'.
        return call.key.shape[2] == step.text_keys

    def answer(self, call: AttentionCall, step: Step) -> Tensor:
        guided = call.at(step.rows)
        if step.packing is not None:
            count = step.packing.positive
            key, value, mask = _keys(guided, slice(count, None))
            if self.masks_negative and step.negative.mask is not None:
                mask = step.negative.mask.bool()[:, None, None]
            self.kept = key, value, mask
            call = call.against(*_keys(call, slice(count)))
        assert self.kept is not None
        return guide_heads(call(), guided.against(*self.kept)(), step)


def _keys(call: AttentionCall, part: slice) -> tuple[Tensor, Tensor, Tensor | None]:
    mask = call.attn_mask
    return call.key[:, :, part], call.value[:, :, part], None if mask is None else mask[..., part]
