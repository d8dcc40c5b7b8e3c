"""Joint attention of text and image in one sequence: both prompts' text, one image stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from nag.attention import AttentionCall, attention_with_lse, merge_by_lse, supports_lse
from nag.guided_step import GuidedStep
from nag.negative import scatter_rows
from nag.processors.guided import GuidedProcessor, Values, guide_heads
from nag.token_layout import TokenLayout

__all__ = ["JointAttentionProcessor", "guide_image", "merged_attention", "two_call_attention"]


#: Places in what `TokenLayout.split` returns.
NEGATIVE, IMAGE = 2, 3


class Outputs(NamedTuple):
    """Outputs of the shared, positive and negative tokens and of the image, (B, H, tokens, D) each.

    The negative's, Z− and what is flipped are of the guided rows alone; the last two as `guide_heads` takes them.
    """

    shared: Tensor
    positive: Tensor
    negative: Tensor
    z_positive: Tensor
    z_negative: Callable[[], Tensor]
    z_flipped: Callable[[Values], Tensor]


class JointAttentionProcessor(GuidedProcessor):
    """For any joint attention whose sequence a `TokenLayout` describes, and for blocks that refine the text alone.

    Image × image is computed once and merged by log-sum-exp; if there is no image, another backend was chosen, the
    text is masked or no kernel returns the log-sum-exp, two attention calls give the same.
    """

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        # Queries of text and image together; an adapter's further calls attend to keys of their own.
        return call.query.shape[2] == call.key.shape[2] >= step.text_here

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        layout = step.token_layout
        if step.split is None:
            return _guided_sequence(call, layout, layout, step)

        def attend(
            call: AttentionCall, queries: TokenLayout, keys: TokenLayout, sum_heads: Callable[[Tensor], Tensor] | None
        ) -> Tensor:
            return _guided_sequence(call, queries, keys, replace(step, layout=queries, sum_heads=sum_heads))

        return step.split.attend(call, layout, attend)


def _guided_sequence(call: AttentionCall, queries: TokenLayout, keys: TokenLayout, step: GuidedStep) -> Tensor:
    has_image = call.key.shape[2] > keys.text
    attend = merged_attention if has_image and supports_lse(call) else two_call_attention
    return guide_image(attend(call, queries, step.rows, keys), step)


def guide_image(outputs: Outputs, step: GuidedStep) -> Tensor:
    """Returns the output of the whole sequence, (B, H, T, D), with the image guided."""
    shared, positive, negative, z_positive, z_negative, z_flipped = outputs
    negative = scatter_rows(negative, step.rows, len(positive))  # rows without guidance have none to speak of
    image = guide_heads(z_positive, z_negative, z_flipped, step)
    # In the order that kernels leave in memory and processors ask for: all heads of a token side by side.
    shared, positive, negative, image = (out.transpose(1, 2) for out in (shared, positive, negative, image))
    return step.token_layout.join(shared, positive, negative, image, dim=1).transpose(1, 2)


def merged_attention(call: AttentionCall, layout: TokenLayout, rows: slice, keys: TokenLayout | None = None) -> Outputs:
    """Attends from all queries to the image once, then from each to the one prompt that it may see, and merges.

    Args:
        call: of all rows.
        layout: of the queries.
        rows: the guided ones.
        keys: the layout of the keys, if it is another.

    """
    keys = keys or layout
    shared_q, pos_q, neg_q, image_q = layout.split(call.query, 2)
    shared_k, pos_k, neg_k, image_k = keys.split(call.key, 2)
    shared_v, pos_v, neg_v, image_v = keys.split(call.value, 2)
    if layout.shared:
        image_k, image_v = torch.cat([shared_k, image_k], 2), torch.cat([shared_v, image_v], 2)
    out, lse = attention_with_lse(call.query, image_k, image_v, call.scale)
    shared_out, pos_out, neg_out, image_out = layout.split(out, 2)
    shared_lse, pos_lse, neg_lse, image_lse = layout.split(lse, 2)

    def add(out: Tensor, lse: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return merge_by_lse(out, lse, *attention_with_lse(query, key, value, call.scale))

    of_positive = attention_with_lse(image_q, pos_k, pos_v, call.scale)
    z_positive = merge_by_lse(image_out, image_lse, *of_positive)

    def z_negative() -> Tensor:
        return add(image_out[rows], image_lse[rows], image_q[rows], neg_k[rows], neg_v[rows])

    def z_flipped(flip: Values) -> Tensor:
        lse = torch.logaddexp(image_lse[rows], of_positive[1][rows])
        return add(z_positive[rows], lse, image_q[rows], neg_k[rows], flip(neg_v[rows]))

    return Outputs(
        add(shared_out, shared_lse, shared_q, pos_k, pos_v) if layout.shared else shared_out,
        add(pos_out, pos_lse, pos_q, pos_k, pos_v),
        add(neg_out[rows], neg_lse[rows], neg_q[rows], neg_k[rows], neg_v[rows]),
        z_positive,
        z_negative,
        z_flipped,
    )


def two_call_attention(
    call: AttentionCall, layout: TokenLayout, rows: slice, keys: TokenLayout | None = None
) -> Outputs:
    """Computes the same as `merged_attention` by two calls: positive and image, negative and image."""
    keys = keys or layout
    shared, positive, _, z_positive = replace(layout, negative=0).split(
        _drop_prompt(call, layout, keys, negative=False)(), 2
    )
    guided, alone = call.for_rows(rows), replace(layout, positive=0)
    to_negative = _drop_prompt(guided, layout, keys, negative=True)

    def z_flipped(flip: Values) -> Tensor:
        shared_v, pos_v, neg_v, image_v = keys.split(guided.value, 2)
        value = keys.join(shared_v, pos_v, flip(neg_v), image_v, 2)
        return _take_queries(replace(guided, value=value), layout, IMAGE)()

    return Outputs(
        shared,
        positive,
        _take_queries(to_negative, alone, NEGATIVE)(),
        z_positive,
        _take_queries(to_negative, alone, IMAGE),
        z_flipped,
    )


def _drop_prompt(call: AttentionCall, layout: TokenLayout, keys: TokenLayout, *, negative: bool) -> AttentionCall:
    """Returns the call without one of the prompts in queries, keys and mask."""
    key, value = (keys.of_one(states, 2, negative=negative) for states in (call.key, call.value))
    mask = call.attn_mask
    if mask is not None:
        mask = keys.of_one(mask, -1, negative=negative)
        mask = layout.of_one(mask, -2, negative=negative) if mask.shape[-2] > 1 else mask
    return replace(call, query=layout.of_one(call.query, 2, negative=negative), key=key, value=value, attn_mask=mask)


def _take_queries(call: AttentionCall, layout: TokenLayout, part: int) -> AttentionCall:
    """Returns the call with one part of the layout as its queries."""
    mask = call.attn_mask
    if mask is not None and mask.shape[-2] > 1:
        mask = layout.split(mask, mask.ndim - 2)[part]
    return replace(call, query=layout.split(call.query, 2)[part], attn_mask=mask)
