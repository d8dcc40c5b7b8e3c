"""Cross attention for models whose text also attends to itself; the two prompts never attend to each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.guided_step import GuidedStep
from nag.processors.cross import MaskedNegativeProcessor

__all__ = ["TextSelfAttentionProcessor"]


class TextSelfAttentionProcessor(MaskedNegativeProcessor):
    """Guides the attention of the image to the text, and keeps the prompts apart in that of the text to itself."""

    of_text = False

    def run(self, step: GuidedStep, attn: Any, *args: Any, **kwargs: Any) -> Any:
        self.of_text = kwargs.get("encoder_hidden_states") is None
        return super().run(step, attn, *args, **kwargs)

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        if not self.of_text:
            return super().guided_attention(call, step)
        layout = step.token_layout
        parts = slice(layout.positive), slice(layout.positive, None)
        of_positive, of_negative = (
            replace(
                call,
                query=call.query[:, :, part],
                key=call.key[:, :, part],
                value=call.value[:, :, part],
                attn_mask=None if call.attn_mask is None else call.attn_mask[..., part],
            )
            for part in parts
        )
        mask = step.negative.scatter_rows(step.rows, len(call.query)).mask
        if mask is not None and call.attn_mask is None:  # a model that reads its prompts without a mask
            of_negative = replace(of_negative, attn_mask=mask.bool()[:, None, None])
        return torch.cat([of_positive(), of_negative()], dim=2)
