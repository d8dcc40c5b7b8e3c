"""Kandinsky 5: cross attention to Qwen's tokens, which blocks of their own refine at every timestep.

In those blocks each prompt's tokens meet their own prompt alone, from their own first position on. The pooled CLIP
prompt stays the positive one. The pipelines read the padding of prompts of unequal length; of a negative it is masked.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from nag.families.arguments import SHARED, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.processors.text_self_attention import TextSelfAttentionProcessor

__all__ = ["Kandinsky5"]


class Kandinsky5(Family):
    name = "Kandinsky 5"
    models = "T2I, I2I, T2V, I2V; Lite, Pro"
    source = "as Wan2.1, not tuned"
    attention = "cross"
    denoiser_types = ("Kandinsky5Transformer3DModel",)
    attention_modules: ClassVar[tuple[str, ...]] = (
        "text_transformer_blocks.*.self_attention",
        "visual_transformer_blocks.*.cross_attention",
    )
    processor_class = TextSelfAttentionProcessor
    processors = ("Kandinsky5AttnProcessor",)
    negative_mask_arg = "negative_prompt_attention_mask"
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(("visual_rope_pos", "text_rope_pos"), SHARED)
    cfg = "separate"
    encodes_one_by_one = True

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        positions = call["text_rope_pos"]
        restarted = torch.arange(negative.embeds.shape[1], device=positions.device, dtype=positions.dtype)
        return super().pack(call, negative) | {"text_rope_pos": torch.cat([positions, restarted])}
