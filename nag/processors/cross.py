"""Cross attention: image queries against the text of one prompt; the negative is a second set of keys and values."""

from __future__ import annotations

from torch import Tensor

from nag.attention import AttentionCall
from nag.guided_step import GuidedStep
from nag.processors.guided import GuidedProcessor, guide_heads

__all__ = ["CrossAttentionProcessor", "MaskedNegativeProcessor", "keys_of"]


class CrossAttentionProcessor(GuidedProcessor):
    """Takes the negative's keys from behind the positive's at a packed step, and keeps them for later steps."""

    masks_negative = False  # whether the negative is masked in a model that reads its prompts without a mask

    def should_intercept(self, call: AttentionCall, step: GuidedStep) -> bool:
        # An image adapter's keys are as many as its tokens, never both prompts'.
        return call.key.shape[2] == step.text_keys

    def guided_attention(self, call: AttentionCall, step: GuidedStep) -> Tensor:
        guided = call.for_rows(step.rows)
        if step.layout is not None:
            count = step.layout.positive
            key, value, mask = keys_of(guided, slice(count, None))
            if self.masks_negative and step.negative.mask is not None:
                mask = step.negative.mask.bool()[:, None, None]
            # One query's mask is every query's, whatever the size of the image that these keys meet later.
            step.kept.by_attention[self.place] = key, value, None if mask is None else mask[..., :1, :]
            call = call.with_kv(*keys_of(call, slice(count)))
        key, value, mask = step.kept.by_attention[self.place]
        return guide_heads(
            call(),
            guided.with_kv(key, value, mask),
            lambda flip: call.for_rows(step.rows).with_more_kv(key, flip(value), mask)(),
            step,
        )


class MaskedNegativeProcessor(CrossAttentionProcessor):
    """Masks the negative prompt of models that read their prompts without a mask."""

    masks_negative = True


def keys_of(call: AttentionCall, part: slice) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns keys, values and mask of some of a call's text tokens."""
    mask = call.attn_mask
    return call.key[:, :, part], call.value[:, :, part], None if mask is None else mask[..., part]
