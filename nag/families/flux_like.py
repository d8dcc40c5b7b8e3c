"""Models built as Flux.1 is, without a pooled prompt: double, then single blocks, text first, positions by `txt_ids`.

LongCat-Image and Ovis-Image count their text tokens on two rotary axes, so the negative's count from zero again. Bria
has every text token at the origin, and zeros in place of an empty negative prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch

from nag.encoding import Arguments
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__all__ = ["Bria", "FluxLike", "LongCatImage", "OvisImage"]


class FluxLike(Family):
    """What these models share.

    Attributes:
        counted: the axes of `txt_ids` on which text tokens are counted; the others are zero.

    """

    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
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
