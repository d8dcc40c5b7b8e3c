"""Models built as Flux.1 is, without a pooled prompt: double, then single blocks, text first, positions by `txt_ids`.

LongCat-Image and Ovis-Image count their text tokens on two rotary axes, Flux.3 on the fourth, so the negative's count
from zero again. Bria has every text token at the origin, and zeros in place of an empty negative prompt. Chroma masks
its text; the mask that reaches the denoiser covers text and image, so the negative's goes between the two. In Flux.3
text and image first pass blocks of their own; its reference images are image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch

from nag.families.arguments import NUMBERS, ROWS, SHARED, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments

__all__ = ["Bria", "Chroma", "Flux3", "FluxLike", "LongCatImage", "OvisImage"]


class FluxLike(Family):
    """The base of these models.

    Attributes:
        counted: the axes of `txt_ids` on which text tokens are counted; the others are zero.

    """

    attention = "joint"
    attention_modules = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")
    timestep_unit = 1000.0
    cfg: ClassVar[Literal["batched", "separate"]] = "separate"
    counted: ClassVar[tuple[int, ...]] = ()

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        ids, count = call["txt_ids"], negative.embeds.shape[1]
        negative_ids = ids.new_zeros(*ids.shape[:-2], count, ids.shape[-1])
        for axis in self.counted:
            negative_ids[..., axis] = torch.arange(count, device=ids.device)
        return super().pack(call, negative) | {"txt_ids": torch.cat([ids, negative_ids], dim=-2)}


class LongCatImage(FluxLike):
    name = "LongCat-Image"
    models = "LongCat-Image, Edit"
    denoiser_types = ("LongCatImageTransformer2DModel",)
    processors = ("LongCatImageAttnProcessor",)
    counted = (1, 2)


class OvisImage(FluxLike):
    name = "Ovis-Image"
    models = "Ovis-Image-7B"
    denoiser_types = ("OvisImageTransformer2DModel",)
    processors = ("OvisImageAttnProcessor",)
    counted = (1, 2)


class Bria(FluxLike):
    name = "Bria"
    models = "Bria 3.2"
    denoiser_types = ("BriaTransformer2DModel",)
    processors = ("BriaAttnProcessor",)
    timestep_unit = 1.0
    cfg = "batched"

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        embeds = super().encode(encode_prompt, prompts, arguments).embeds.clone()
        for row, prompt in enumerate(prompts):
            if not prompt:
                embeds[row] = 0
        return NegativeEmbeds(embeds)


class Chroma(FluxLike):
    name = "Chroma"
    models = "Chroma1 HD, Base, Flash"
    denoiser_types = ("ChromaTransformer2DModel",)
    processors = ("FluxAttnProcessor", "FluxIPAdapterAttnProcessor")
    negative_mask_arg = "negative_prompt_attention_mask"
    encoded = ("embeds", "text_ids", "mask", "negative_embeds", "negative_text_ids", "negative_mask")

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        embeds, mask = call["encoder_hidden_states"], call.get("attention_mask")
        if mask is not None or negative.mask is not None:
            text, image = embeds.shape[1], call["hidden_states"].shape[1]
            mask = mask if mask is not None else embeds.new_ones(len(embeds), text + image)
            extra = negative.mask if negative.mask is not None else mask.new_ones(negative.embeds.shape[:2])
            packed["attention_mask"] = torch.cat([mask[:, :text], extra.to(mask.dtype), mask[:, text:]], dim=1)
        return packed


class Flux3(FluxLike):
    name = "Flux.3"
    models = "dev, distilled; with reference images or without"
    denoiser_types = ("Flux3Transformer2DModel",)
    attention_modules = ("txt_mode_blocks.*.attn", "single_transformer_blocks.*.attn")
    processors = ("Flux3AttnProcessor",)
    arguments: ClassVar[dict[str, Argument]] = {
        "image_cond_hidden_states": ROWS,
        "image_cond_ids": SHARED,
        "target_timestep": NUMBERS,
    }
    counted = (3,)
