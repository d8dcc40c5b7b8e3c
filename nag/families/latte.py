"""Latte: cross attention to T5's tokens, once for each frame, which are the same at every step.

The pipelines cut a prompt's padding off, or in a batch set it to zero and read it; of a negative it is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nag.current import CurrentStep
from nag.encoding import Arguments, encode_alone
from nag.families.padding import padded
from nag.families.plain_cross import PlainCrossAttention
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.processors import CrossAttentionProcessor
from nag.state import GuidedStep

__all__ = ["Latte"]


class Latte(PlainCrossAttention):
    name = "Latte"
    models = "Latte-1"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as PixArt-Σ, not tuned"
    denoiser_types = ("LatteTransformer3DModel",)
    negative_mask_arg = "negative_prompt_attention_mask"
    cfg = "batched"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        return padded([encode_alone(encode_prompt, [prompt], arguments)[0][0] for prompt in prompts])

    def processor(self, current: CurrentStep, plain: Any) -> CrossAttentionProcessor:
        made = CrossAttentionProcessor(current, plain)
        made.masks_negative = True
        return made

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        return None if step is None else replace(step, rows_per_sample=call["hidden_states"].shape[2])
