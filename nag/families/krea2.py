"""Krea 2: one stream, text first, always masked; every text token is at the rotary origin.

Before the blocks a small transformer fuses the text by itself; both prompts pass it at once, each seeing its own.
"""

from __future__ import annotations

from typing import Any

import torch

from nag.families.family import Family
from nag.negative import NegativeEmbeds

__all__ = ["Krea2"]


class Krea2(Family):
    name = "Krea 2"
    models = "base, turbo"
    attention = "joint"
    denoiser_types = ("Krea2Transformer2DModel",)
    attention_modules = ("text_fusion.refiner_blocks.*.attn", "transformer_blocks.*.attn")
    processors = ("Krea2AttnProcessor",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    cfg = "separate"
    cfg_off = 0.0

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        ids, text = call["position_ids"], call["encoder_hidden_states"].shape[1]
        origin = ids.new_zeros(negative.embeds.shape[1], ids.shape[-1])
        packed["position_ids"] = torch.cat([ids[:text], origin, ids[text:]])
        if packed.get("encoder_attention_mask") is not None:
            packed["encoder_attention_mask"] = packed["encoder_attention_mask"].bool()
        return packed
