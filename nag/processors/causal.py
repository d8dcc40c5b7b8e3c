"""Attention of a causal sequence, text ahead of the image; if the text's keys are kept, of the image alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.guided_step import GuidedStep
from nag.intercept import Interception
from nag.processors.image_query import ImageQueryProcessor
from nag.token_layout import TokenLayout

__all__ = ["CausalTextProcessor"]


class CausalTextProcessor(ImageQueryProcessor):
    """Guides the image's queries. Tokens of a prompt see what both prompts share, and their own prompt."""

    def run(self, step: GuidedStep, attn: Any, *args: Any, **kwargs: Any) -> Any:
        layout = step.token_layout

        def is_of_text(call: AttentionCall) -> bool:
            queries, keys = call.query.shape[2], call.key.shape[2]
            return queries == layout.text and keys == layout.shared + layout.text

        def attend_apart(call: AttentionCall) -> Tensor:
            return torch.cat([_drop_prompt(call, layout, negative=negative)() for negative in (False, True)], dim=2)

        with Interception(is_of_text, attend_apart):
            return super().run(step, attn, *args, **kwargs)


def _drop_prompt(call: AttentionCall, layout: TokenLayout, *, negative: bool) -> AttentionCall:
    """Returns the text's call without one of the prompts; its queries are those of the prompts alone."""
    queries = replace(layout, shared=0)
    mask = call.attn_mask
    if mask is not None:
        mask = queries.of_one(layout.of_one(mask, -1, negative=negative), -2, negative=negative)
    key, value = (layout.of_one(states, 2, negative=negative) for states in (call.key, call.value))
    return replace(call, query=queries.of_one(call.query, 2, negative=negative), key=key, value=value, attn_mask=mask)
