"""Latte: cross attention to T5's tokens, once for each frame, which are the same at every step.

The pipelines cut a prompt's padding off, or in a batch set it to zero and read it; of a negative it is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nag.families.entering import encode_alone
from nag.families.plain import PlainCrossAttention
from nag.families.ragged import padded
from nag.params import NAGParams
from nag.processors import CrossAttentionProcessor
from nag.session import Negative, Session, Step

__all__ = ["Latte"]


class Latte(PlainCrossAttention):
    name = "Latte"
    models = "Latte-1"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as PixArt-Σ, not tuned"
    denoiser_types = ("LatteTransformer3DModel",)
    mask_name = "negative_prompt_attention_mask"
    cfg = "batched"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Negative:
        return padded([encode_alone(encode_prompt, [prompt], arguments)[0][0] for prompt in prompts])

    def processor(self, session: Session, plain: Any) -> CrossAttentionProcessor:
        made = super().processor(session, plain)
        made.masks_negative = True
        return made

    def step(self, pipe: Any, session: Session, call: dict[str, Any]) -> Step | None:
        step = super().step(pipe, session, call)
        frames = call["hidden_states"].shape[2]
        return None if step is None else replace(step, repeats=frames)
