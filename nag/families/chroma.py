"""Chroma: Flux.1 without a pooled prompt; the T5 text, masked, stands first in the joint sequence.

The mask that reaches the denoiser covers text and image, so the negative's goes between the two.
"""

from __future__ import annotations

from typing import Any

import torch

from nag.families.flux_like import FluxLike
from nag.negative import NegativeEmbeds

__all__ = ["Chroma"]


class Chroma(FluxLike):
    name = "Chroma"
    models = "Chroma1 HD, Base, Flash"
    denoiser_types = ("ChromaTransformer2DModel",)
    processors = ("FluxAttnProcessor", "FluxIPAdapterAttnProcessor")
    negative_mask_arg = "negative_prompt_attention_mask"
    encoded = ("embeds", "", "mask")

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        embeds, mask = call["encoder_hidden_states"], call.get("attention_mask")
        if mask is not None or negative.mask is not None:
            text, image = embeds.shape[1], call["hidden_states"].shape[1]
            mask = mask if mask is not None else embeds.new_ones(len(embeds), text + image)
            extra = negative.mask if negative.mask is not None else mask.new_ones(negative.embeds.shape[:2])
            packed["attention_mask"] = torch.cat([mask[:, :text], extra.to(mask.dtype), mask[:, text:]], dim=1)
        return packed
