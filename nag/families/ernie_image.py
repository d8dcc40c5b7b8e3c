"""ERNIE-Image: one stream, image first; the text's length in each row is given to the denoiser as a number.

The image's rotary positions begin where the positive prompt ends, and the text is counted from zero, either prompt's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import NUMBERS, PADDED, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, pad_prompts
from nag.processors.masked_joint import MaskedJointProcessor, masked_layout
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["ErnieImage"]


class ErnieImage(Family):
    name = "ERNIE-Image"
    models = "ERNIE-Image, Turbo"
    attention = "joint"
    denoiser_types = ("ErnieImageTransformer2DModel",)
    attention_modules = ("layers.*.self_attention",)
    processor_class = MaskedJointProcessor
    processors = ("ErnieImageSingleStreamAttnProcessor",)
    negative_mask_arg = "negative_prompt_attention_mask"
    text_argument = "text_bth"
    text_last = True
    arguments: ClassVar[dict[str, Argument]] = {"text_bth": PADDED, "text_lens": NUMBERS}
    unordered_layers = re.compile(r"layers\.\d+\.mlp\..*|final_linear")
    cfg = "batched"
    prompt_arguments: ClassVar[dict[str, str]] = {"text_bth": "embeds", "text_lens": "lengths"}

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        if "lengths" in encoded:
            return pad_prompts(
                [row[:length] for row, length in zip(encoded["embeds"], encoded["lengths"], strict=True)]
            )
        return super().negative_embeds(encoded)

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        embeds, lengths = self.embeds(call), call["text_lens"]
        seen = torch.arange(embeds.shape[1], device=embeds.device) < lengths[:, None]
        return masked_layout(super().layout(call, negative), None if bool(seen.all()) else seen, negative)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def restart(step: GuidedStep, args: tuple[Tensor], kwargs: Any) -> Any:
            (ids,), count = args, step.token_layout.negative
            last = ids[:, -count:].clone()
            last[..., 0] = torch.arange(count, device=ids.device)
            return (torch.cat([ids[:, :-count], last], dim=1),), kwargs

        hooks.before(denoiser.pos_embed, restart)
