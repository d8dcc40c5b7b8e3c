"""LTX-Video and Allegro: cross attention to T5's tokens under a mask; both stay the same at every step.

Allegro's pipeline hands the tokens over with an axis of one in between.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__all__ = ["TEXT_MASK_ERROR", "Allegro", "LTXVideo", "MaskedCrossAttention"]

#: How diffusers splits the attention to the text of LTX-Video and LTX-2.
TEXT_MASK_ERROR = (
    "diffusers applies the mask of the text, made for all heads, to the heads of one rank, and in a ring to the text "
    "of other ranks"
)


class MaskedCrossAttention(Family):
    """The base of these models and SANA."""

    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as SANA, PixArt, not tuned"
    attention = "cross"
    attention_modules: ClassVar[tuple[str, ...]] = ("transformer_blocks.*.attn2",)
    denoiser_mask_arg: ClassVar[str | None] = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    caches_text_kv = True
    cfg: ClassVar[Literal["batched", "separate"]] = "batched"
    encoded = ("embeds", "mask", "negative_embeds", "negative_mask")


class LTXVideo(MaskedCrossAttention):
    name = "LTX-Video"
    models = "0.9: T2V, I2V, conditions, long with many prompts"
    denoiser_types = ("LTXVideoTransformer3DModel",)
    processors = ("LTXVideoAttnProcessor", "LTXVideoAttentionProcessor2_0")
    split_error: ClassVar[str | None] = f"{TEXT_MASK_ERROR}; it does not split the timesteps of single tokens"


class Allegro(MaskedCrossAttention):
    name = "Allegro"
    models = "T2V"
    denoiser_types = ("AllegroTransformer3DModel",)
    processors = ("AllegroAttnProcessor2_0",)
    arguments: ClassVar[dict[str, Argument]] = {"encoder_hidden_states": ROWS, "encoder_attention_mask": ROWS}

    def embeds(self, call: dict[str, Any]) -> Tensor:
        embeds: Tensor = call["encoder_hidden_states"]
        return embeds.flatten(1, -2)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        return super().pack(call | {"encoder_hidden_states": self.embeds(call)}, negative)
