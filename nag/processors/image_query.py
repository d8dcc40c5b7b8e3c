"""Attention of image queries to text and image; the text supplies keys and values, but no queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nag.attention import AttentionCall, attention_with_lse, merge_by_lse, supports_lse
from nag.guided_step import GuidedStep
from nag.processors.guided import GuidedProcessor, Values, guide_heads
from nag.token_layout import TokenLayout

__all__ = ["ImageQueryProcessor"]


class ImageQueryProcessor(GuidedProcessor):
    """Attends to shared tokens once and to each prompt, and merges; or twice, if no kernel allows a merge."""

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        layout = step.token_layout
        return call.key.shape[2] == layout.shared + layout.text + call.query.shape[2]

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        layout = step.token_layout
        attend = _attend_merged if supports_lse(call) else _attend_twice
        return guide_heads(*attend(call, layout, step.rows), step)


#: Of the image, as `guide_heads` takes them.
Outputs = tuple[Tensor, Callable[[], Tensor], Callable[[Values], Tensor]]


def _attend_merged(call: AttentionCall, layout: TokenLayout, rows: slice) -> Outputs:
    key, value = layout.split(call.key, 2), layout.split(call.value, 2)
    (shared_k, pos_k, neg_k, image_k), (shared_v, pos_v, neg_v, image_v) = key, value
    both_k, both_v = torch.cat([shared_k, image_k], 2), torch.cat([shared_v, image_v], 2)
    out, lse = attention_with_lse(call.query, both_k, both_v, call.scale)
    of_positive = attention_with_lse(call.query, pos_k, pos_v, call.scale)
    z_positive = merge_by_lse(out, lse, *of_positive)

    def with_negative(z: Tensor, lse: Tensor, value: Tensor) -> Tensor:
        of_negative = attention_with_lse(call.query[rows], neg_k[rows], value, call.scale)
        return merge_by_lse(z[rows], lse[rows], *of_negative)

    return (
        z_positive,
        lambda: with_negative(out, lse, neg_v[rows]),
        lambda flip: with_negative(z_positive, torch.logaddexp(lse, of_positive[1]), flip(neg_v[rows])),
    )


def _attend_twice(call: AttentionCall, layout: TokenLayout, rows: slice) -> Outputs:
    guided = call.for_rows(rows)

    def z_flipped(flip: Values) -> Tensor:
        shared_v, pos_v, neg_v, image_v = layout.split(guided.value, 2)
        return replace(guided, value=layout.join(shared_v, pos_v, flip(neg_v), image_v, 2))()

    return _drop_prompt(call, layout, negative=False)(), _drop_prompt(guided, layout, negative=True), z_flipped


def _drop_prompt(call: AttentionCall, layout: TokenLayout, *, negative: bool) -> AttentionCall:
    """Returns the call without one of the prompts in keys, values and mask."""

    def keep(states: Tensor, dim: int) -> Tensor:
        return layout.of_one(states, dim, negative=negative)

    mask = None if call.attn_mask is None else keep(call.attn_mask, -1)
    return replace(call, key=keep(call.key, 2), value=keep(call.value, 2), attn_mask=mask)
