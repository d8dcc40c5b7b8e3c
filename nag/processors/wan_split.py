"""Cross attention to `[image | text]`, whose processor takes the last 512 tokens for the text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from nag.attention import AttentionCall
from nag.current_step import CurrentStep
from nag.errors import InvalidParameter
from nag.guided_step import GuidedStep
from nag.processors.cross import CrossAttentionProcessor

__all__ = ["WanSplitProcessor"]

#: The text's tokens, a number written into the processors of Wan and its relatives.
TEXT = 512


class WanSplitProcessor(CrossAttentionProcessor):
    """Takes the negative's keys from a run of their own by one query, so that its tokens never reach the split.

    Where the attention has no keys for an image, it is plain cross attention.
    """

    def __init__(self, current: CurrentStep, original: Any) -> None:
        super().__init__(current, original)
        self.of_negative = _NegativeKeys(current, original)

    def run(self, step: GuidedStep, attn: Any, *args: Any, **kwargs: Any) -> Any:
        layout = step.layout
        if layout is None or attn.add_k_proj is None:
            return super().run(step, attn, *args, **kwargs)
        if layout.negative > TEXT:
            raise InvalidParameter("negative_prompt", f"has {layout.negative} tokens; this model reads {TEXT}")
        hidden_states, tokens, *rest = args
        # The processor's split needs one token ahead of the text; the negative's are the last.
        alone = replace(step, text_keys=TEXT)
        self.of_negative.place = self.place
        self.of_negative.run(alone, attn, hidden_states[:, :1], tokens[:, -TEXT - 1 :], *rest, **kwargs)
        unpacked = replace(step, layout=None, text_keys=layout.positive)
        return super().run(unpacked, attn, hidden_states, tokens[:, : -layout.negative], *rest, **kwargs)


class _NegativeKeys(CrossAttentionProcessor):
    """Keeps the negative's keys and values."""

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        guided = call.for_rows(step.rows)
        last = slice(-step.token_layout.negative, None)
        step.kept.by_attention[self.place] = guided.key[:, :, last], guided.value[:, :, last], None
        return call()
