"""A causal sequence, text ahead of the image, attended to in pieces, or by the image alone once keys are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.intercept import Interception
from nag.processors.image_query import ImageQueryProcessor
from nag.state import GuidedStep

__all__ = ["CausalTextProcessor"]


class CausalTextProcessor(ImageQueryProcessor):
    """The image's queries are guided; the negative's words, which stand last, see nothing of the positive's."""

    def run(self, step: GuidedStep, attn: Any, *args: Any, **kwargs: Any) -> Any:
        layout = step.layout
        assert layout is not None

        def of_text(call: AttentionCall) -> bool:
            queries, keys = call.query.shape[2], call.key.shape[2]
            return queries == layout.text and keys == layout.shared + layout.text

        def apart(call: AttentionCall) -> Tensor:
            token = torch.arange(layout.text, device=call.query.device)
            of_negative, of_positive = token >= layout.positive, token < layout.positive
            ahead = of_positive.new_zeros(layout.text, layout.shared)
            hidden = torch.cat([ahead, of_negative[:, None] & of_positive], dim=1)
            assert call.attn_mask is not None
            return replace(call, attn_mask=call.attn_mask & ~hidden)()

        with Interception(of_text, apart):
            return super().run(step, attn, *args, **kwargs)
