"""A causal sequence, text ahead of the image, attended to in pieces, or by the image alone once keys are kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nag.attention import AttentionCall
from nag.intercept import Interception
from nag.processors.beside import BesideAttentionProcessor
from nag.session import Step

__all__ = ["CausalTextProcessor"]


class CausalTextProcessor(BesideAttentionProcessor):
    """The image's queries are guided; the negative's words, which stand last, see nothing of the positive's."""

    def run(self, step: Step, attn: Any, *args: Any, **kwargs: Any) -> Any:
        packing = step.packing
        assert packing is not None

        def of_text(call: AttentionCall) -> bool:
            queries, keys = call.query.shape[2], call.key.shape[2]
            return queries == packing.text and keys == packing.shared + packing.text

        def apart(call: AttentionCall) -> Tensor:
            token = torch.arange(packing.text, device=call.query.device)
            of_negative, of_positive = token >= packing.positive, token < packing.positive
            ahead = of_positive.new_zeros(packing.text, packing.shared)
            hidden = torch.cat([ahead, of_negative[:, None] & of_positive], dim=1)
            assert call.attn_mask is not None
            return replace(call, attn_mask=call.attn_mask & ~hidden)()

        with Interception(of_text, apart):
            return super().run(step, attn, *args, **kwargs)
