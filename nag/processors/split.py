"""Cross attention to `[image | text]`, where the processor itself takes the last 512 tokens for the text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from nag.attention import AttentionCall
from nag.errors import InvalidParameter
from nag.processors.cross import CrossAttentionProcessor
from nag.session import Session, Step

__all__ = ["SplitAttentionProcessor"]

#: The text's tokens, a number written into the processors of Wan and its relatives.
TEXT = 512


class SplitAttentionProcessor(CrossAttentionProcessor):
    """The negative's tokens never reach the split: its keys are taken from a run of their own, by one query.

    Where the attention has no keys for an image, it is plain cross attention.
    """

    def __init__(self, session: Session, plain: Any) -> None:
        super().__init__(session, plain)
        self.of_negative = _NegativeKeys(session, plain)

    def run(self, step: Step, attn: Any, *args: Any, **kwargs: Any) -> Any:
        packing = step.packing
        if packing is None or attn.add_k_proj is None:
            return super().run(step, attn, *args, **kwargs)
        if packing.negative > TEXT:
            raise InvalidParameter("negative_prompt", f"has {packing.negative} tokens; this model reads {TEXT}")
        hidden_states, tokens, *rest = args
        # The processor's split needs one token ahead of the text; the negative's are the last.
        alone = replace(step, text_keys=TEXT)
        self.of_negative.run(alone, attn, hidden_states[:, :1], tokens[:, -TEXT - 1 :], *rest, **kwargs)
        self.kept = self.of_negative.kept
        unpacked = replace(step, packing=None, text_keys=packing.positive)
        return super().run(unpacked, attn, hidden_states, tokens[:, : -packing.negative], *rest, **kwargs)


class _NegativeKeys(CrossAttentionProcessor):
    """Notes the negative's keys and values."""

    def answer(self, call: AttentionCall, step: Step) -> Tensor:
        assert step.packing is not None
        guided = call.at(step.rows)
        last = slice(-step.packing.negative, None)
        self.kept = guided.key[:, :, last], guided.value[:, :, last], None
        return call()
