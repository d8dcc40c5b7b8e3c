"""Value sign flip (arXiv 2508.10931): one softmax over both prompts, the negative's values turned round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.processors.cross import CrossAttentionProcessor
from nag.processors.joint import JointAttentionProcessor, two_call_attention
from nag.state import GuidedStep

__all__ = ["ANSWERS"]


def _joint(self: JointAttentionProcessor, call: AttentionCall, step: GuidedStep) -> Tensor:
    """The image sees everything, each prompt itself and the image."""
    del self
    layout = step.layout
    assert layout is not None
    assert step.rows == slice(0, len(call.query)), "every row is guided here"
    shared, positive, negative, _, _ = two_call_attention(call, layout, step.rows)
    shared_v, pos_v, neg_v, image_v = layout.split(call.value, 2)
    flipped = layout.join(shared_v, pos_v, -_strength(step, neg_v) * neg_v, image_v, dim=2)
    image = AttentionCall(layout.split(call.query, 2)[3], call.key, flipped, scale=call.scale)()
    return layout.join(shared, positive, negative, image, dim=2)


def _cross(self: CrossAttentionProcessor, call: AttentionCall, step: GuidedStep) -> Tensor:
    if step.layout is not None:
        count = step.layout.positive
        step.kept.by_attention[self.place] = call.key[:, :, count:], call.value[:, :, count:], None
        call = call.with_kv(call.key[:, :, :count], call.value[:, :, :count])
    key, value, _ = step.kept.by_attention[self.place]
    values = torch.cat([call.value, -_strength(step, value) * value], 2)
    return call.with_kv(torch.cat([call.key, key], 2), values)()


def _strength(step: GuidedStep, values: Tensor) -> Tensor:
    return torch.as_tensor(step.numbers.scale - 1).to(values).reshape(-1, 1, 1, 1)


#: Replaces each processor's `guided_attention`.
ANSWERS: dict[type, Any] = {JointAttentionProcessor: _joint, CrossAttentionProcessor: _cross}
