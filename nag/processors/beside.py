"""Image queries against `[text | image]`, where the text brings keys and values and asks for nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.packing import Packing
from nag.processors.guided import GuidedProcessor, guide_heads
from nag.session import Step

__all__ = ["BesideAttentionProcessor"]


class BesideAttentionProcessor(GuidedProcessor):
    """Attends twice, over the positive and the image and over the negative and the image."""

    def wanted(self, call: AttentionCall, step: Step) -> bool:
        assert step.packing is not None
        return call.key.shape[2] == step.packing.text + call.query.shape[2]

    def answer(self, call: AttentionCall, step: Step) -> Tensor:
        packing = step.packing
        assert packing is not None
        of_positive = _keys(call, packing, negative=False)()
        of_negative = _keys(call.at(step.rows), packing, negative=True)()
        return guide_heads(of_positive, of_negative, step)


def _keys(call: AttentionCall, packing: Packing, *, negative: bool) -> AttentionCall:
    """The call with one of the prompts taken out of keys, values and mask."""

    def keep(states: Tensor, dim: int) -> Tensor:
        _, of_positive, of_negative, image = packing.split(states, dim)
        return torch.cat([of_negative if negative else of_positive, image], dim)

    mask = None if call.attn_mask is None else keep(call.attn_mask, -1)
    return replace(call, key=keep(call.key, 2), value=keep(call.value, 2), attn_mask=mask)
