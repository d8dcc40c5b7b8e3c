"""Mochi: joint attention, image first, with rotary positions of the image alone; each row's padding is left out.

The prompt is also pooled into the modulation, and the pooled one stays the positive's: the negative's tokens join
behind the embedding that makes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds, scatter_rows
from nag.pipelines import Arguments, encode_prompts
from nag.processors.per_row_mask import RowByRowProcessor, text_behind
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["Mochi"]


class Mochi(Family):
    name = "Mochi"
    models = "Mochi 1"
    attention = "joint"
    denoiser_types = ("MochiTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn1",)
    processor_class = RowByRowProcessor
    processors = ("MochiAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    text_last = True
    timestep_rises = True
    cfg = "batched"
    is_packed = False
    notes = "equation 7, the positive's pooled prompt"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # One at a time: a last prompt that is empty may blank all that are encoded with it.
        encoded = [encode_prompts(encode_prompt, [prompt], arguments)[:2] for prompt in prompts]
        embeds, mask = (torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        return NegativeEmbeds(embeds, mask=mask)

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        return text_behind(call["encoder_attention_mask"], negative.token_mask)

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        embed = denoiser.time_embed

        def append(step: GuidedStep, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            modulation, text = output
            negative = embed.caption_proj(step.negative.embeds)
            return modulation, torch.cat([text, scatter_rows(negative, step.rows, len(text))], dim=1)

        hooks.after(embed, append)
