"""Joint attention of text and image in one sequence: both prompts' text, one image stream."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nag.attention import AttentionCall, attention_with_lse, merge_by_lse, supports_lse
from nag.negative import scatter_rows
from nag.processors.guided import GuidedProcessor, guide_heads
from nag.state import GuidedStep
from nag.token_layout import TokenLayout

__all__ = ["JointAttentionProcessor", "merged_attention", "two_call_attention"]

#: Outputs of the shared, positive and negative tokens, and of the image as Z+ and Z−; (B, H, tokens, D) each, the
#: negative's and Z− of the guided rows alone.
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class JointAttentionProcessor(GuidedProcessor):
    """For any joint attention whose sequence a `TokenLayout` describes, and for blocks that refine the text alone.

    Image × image is computed once and merged by log-sum-exp; where there is no image, a backend was chosen, the text is
    masked or no kernel returns the log-sum-exp, two attention calls give the same.
    """

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        # Queries of text and image together; an adapter's further calls attend to keys of their own.
        assert step.layout is not None
        return call.query.shape[2] == call.key.shape[2] >= step.layout.text

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        layout = step.layout
        assert layout is not None
        has_image = call.key.shape[2] > layout.text
        attend = merged_attention if has_image and supports_lse(call) else two_call_attention
        shared, positive, negative, z_positive, z_negative = attend(call, layout, step.rows)
        negative = scatter_rows(negative, step.rows, len(positive))  # rows without guidance have none to speak of
        image = guide_heads(z_positive, z_negative, step)
        # In the order that kernels leave in memory and processors ask for: all heads of a token side by side.
        shared, positive, negative, image = (each.transpose(1, 2) for each in (shared, positive, negative, image))
        return layout.join(shared, positive, negative, image, dim=1).transpose(1, 2)


def merged_attention(call: AttentionCall, layout: TokenLayout, rows: slice) -> Outputs:
    """Every query against the image once, then each against the one prompt it may see."""
    shared_q, pos_q, neg_q, image_q = layout.split(call.query, 2)
    shared_k, pos_k, neg_k, image_k = layout.split(call.key, 2)
    shared_v, pos_v, neg_v, image_v = layout.split(call.value, 2)
    if layout.shared:
        image_k, image_v = torch.cat([shared_k, image_k], 2), torch.cat([shared_v, image_v], 2)
    out, lse = attention_with_lse(call.query, image_k, image_v, call.scale)
    shared_out, pos_out, neg_out, image_out = layout.split(out, 2)
    shared_lse, pos_lse, neg_lse, image_lse = layout.split(lse, 2)

    def add(out: Tensor, lse: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return merge_by_lse(out, lse, *attention_with_lse(query, key, value, call.scale))

    return (
        add(shared_out, shared_lse, shared_q, pos_k, pos_v) if layout.shared else shared_out,
        add(pos_out, pos_lse, pos_q, pos_k, pos_v),
        add(neg_out[rows], neg_lse[rows], neg_q[rows], neg_k[rows], neg_v[rows]),
        add(image_out, image_lse, image_q, pos_k, pos_v),
        add(image_out[rows], image_lse[rows], image_q[rows], neg_k[rows], neg_v[rows]),
    )


def two_call_attention(call: AttentionCall, layout: TokenLayout, rows: slice) -> Outputs:
    """The same by attending twice, over the positive and the image and over the negative and the image."""
    of_positive = _over(call, layout, negative=False)()
    of_negative = _over(call.at(rows), layout, negative=True)()
    shared, positive, _, z_positive = replace(layout, negative=0).split(of_positive, 2)
    _, _, negative, z_negative = replace(layout, positive=0).split(of_negative, 2)
    return shared, positive, negative, z_positive, z_negative


def _over(call: AttentionCall, layout: TokenLayout, *, negative: bool) -> AttentionCall:
    """The call with one of the prompts taken out of queries, keys and mask."""

    def keep(states: Tensor, dim: int) -> Tensor:
        return layout.of_one(states, dim, negative=negative)

    mask = call.attn_mask
    if mask is not None:
        mask = keep(mask, -1)
        mask = keep(mask, -2) if mask.shape[-2] > 1 else mask
    return replace(call, query=keep(call.query, 2), key=keep(call.key, 2), value=keep(call.value, 2), attn_mask=mask)
