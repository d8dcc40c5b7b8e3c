"""Wan-Animate 2: Wan's cross attention, to an image and to text by arguments of their own.

The denoiser fills its text up to 512 tokens, and the negative joins it behind that. The pass over the driving video has
a prompt of its own and stays plain, and so does the unconditional one, which leaves out a block.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, scatter_rows
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["WanAnimate2"]

#: The text's tokens, for which the denoiser has a setting that no checkpoint changes.
TEXT = 512


class WanAnimate2(Family):
    name = "Wan-Animate 2"
    models = "base, distilled"
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    denoiser_types: ClassVar[tuple[str, ...]] = ("WanAnimate2Transformer3DModel",)
    attention_modules = ("blocks.*.cross_attn",)
    processors = ("WanAnimate2CrossAttnProcessor",)
    caches_text_kv = True
    cannot_join = "reads keys kept of one request's driving video"
    cfg = "separate"
    compiled = "in parts"

    def check_denoiser(self, denoiser: Any) -> None:
        if denoiser.config.text_len != TEXT:
            raise UnsupportedPipeline(f"the denoiser reads {denoiser.config.text_len} tokens of text, not {TEXT}")

    def embeds(self, call: dict[str, Any]) -> Tensor:
        return torch.stack([F.pad(text, (0, 0, 0, TEXT - len(text))) for text in call["encoder_hidden_states"]])

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:  # noqa: ARG002
        return slice(0, len(call["encoder_hidden_states"])) if _is_guided(call) else None

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        return step if _is_guided(call) else None

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:  # noqa: ARG002
        return TokenLayout(TEXT, TEXT)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        if negative.embeds.shape[1] > TEXT:
            raise InvalidParameter("negative_prompt", f"has {negative.embeds.shape[1]} tokens; this model reads {TEXT}")
        return call  # the hooks append it

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def append(step: GuidedStep, args: tuple[Tensor], kwargs: Any) -> Any:
            text, negative = args[0], step.negative.embeds
            negative = F.pad(negative, (0, 0, 0, TEXT - negative.shape[1]))
            return (torch.cat([text, scatter_rows(negative, step.rows, len(text))], dim=1),), kwargs

        hooks.before(denoiser.text_embedding, append)


def _is_guided(call: dict[str, Any]) -> bool:
    """Whether a call denoises for the prompt."""
    return call["kv_cache_mode"] == "cached" and not call.get("is_uncondtion")
