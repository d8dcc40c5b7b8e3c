"""Image queries against text and image, where the text brings keys and values and asks for nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nag.attention import AttentionCall, attention_with_lse, merge_by_lse, supports_lse
from nag.processors.guided import GuidedProcessor, guide_heads
from nag.state import GuidedStep
from nag.token_layout import TokenLayout

__all__ = ["ImageQueryProcessor"]


class ImageQueryProcessor(GuidedProcessor):
    """Attends to what both prompts share once, and to each prompt; or twice, where that cannot be merged."""

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        assert step.layout is not None
        layout = step.layout
        return call.key.shape[2] == layout.shared + layout.text + call.query.shape[2]

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        layout = step.layout
        assert layout is not None
        attend = _merged if supports_lse(call) else _twice
        return guide_heads(*attend(call, layout, step.rows), step)


def _merged(call: AttentionCall, layout: TokenLayout, rows: slice) -> tuple[Tensor, Tensor]:
    key, value = layout.split(call.key, 2), layout.split(call.value, 2)
    (shared_k, pos_k, neg_k, image_k), (shared_v, pos_v, neg_v, image_v) = key, value
    both_k, both_v = torch.cat([shared_k, image_k], 2), torch.cat([shared_v, image_v], 2)
    out, lse = attention_with_lse(call.query, both_k, both_v, call.scale)
    of_positive = attention_with_lse(call.query, pos_k, pos_v, call.scale)
    of_negative = attention_with_lse(call.query[rows], neg_k[rows], neg_v[rows], call.scale)
    return merge_by_lse(out, lse, *of_positive), merge_by_lse(out[rows], lse[rows], *of_negative)


def _twice(call: AttentionCall, layout: TokenLayout, rows: slice) -> tuple[Tensor, Tensor]:
    return _keys(call, layout, negative=False)(), _keys(call.at(rows), layout, negative=True)()


def _keys(call: AttentionCall, layout: TokenLayout, *, negative: bool) -> AttentionCall:
    """The call with one of the prompts taken out of keys, values and mask."""

    def keep(states: Tensor, dim: int) -> Tensor:
        return layout.of_one(states, dim, negative=negative)

    mask = None if call.attn_mask is None else keep(call.attn_mask, -1)
    return replace(call, key=keep(call.key, 2), value=keep(call.value, 2), attn_mask=mask)
