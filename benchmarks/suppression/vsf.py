"""Value sign flip (arXiv 2508.10931): one softmax over both prompts, the negative's values turned round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.processors.cross import CrossAttentionProcessor
from nag.processors.joint import JointAttentionProcessor, two_call_attention
from nag.session import Step

__all__ = ["ANSWERS"]


def _joint(self: JointAttentionProcessor, call: AttentionCall, step: Step) -> Tensor:
    """The image sees everything, each prompt itself and the image."""
    del self
    packing = step.packing
    assert packing is not None
    assert step.rows == slice(0, len(call.query)), "every row is guided here"
    shared, positive, negative, _, _ = two_call_attention(call, packing, step.rows)
    shared_v, pos_v, neg_v, image_v = packing.split(call.value, 2)
    flipped = packing.join(shared_v, pos_v, -_strength(step, neg_v) * neg_v, image_v, dim=2)
    image = AttentionCall(packing.split(call.query, 2)[3], call.key, flipped, scale=call.scale)()
    return packing.join(shared, positive, negative, image, dim=2)


def _cross(self: CrossAttentionProcessor, call: AttentionCall, step: Step) -> Tensor:
    if step.packing is not None:
        count = step.packing.positive
        self.kept = call.key[:, :, count:], call.value[:, :, count:], None
        call = call.against(call.key[:, :, :count], call.value[:, :, :count])
    assert self.kept is not None
    key, value, _ = self.kept
    values = torch.cat([call.value, -_strength(step, value) * value], 2)
    return call.against(torch.cat([call.key, key], 2), values)()


def _strength(step: Step, values: Tensor) -> Tensor:
    return torch.as_tensor(step.scale - 1).to(values).reshape(-1, 1, 1, 1)


#: What takes the place of each processor's `answer`.
ANSWERS: dict[type, Any] = {JointAttentionProcessor: _joint, CrossAttentionProcessor: _cross}
