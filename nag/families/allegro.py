"""Allegro: cross attention to T5's tokens under a mask; the pipeline hands them over with an axis of one in between."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__all__ = ["Allegro"]


class Allegro(Family):
    name = "Allegro"
    models = "T2V"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as SANA, PixArt, not tuned"
    attention = "cross"
    denoiser_types = ("AllegroTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn2",)
    processors = ("AllegroAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {"encoder_hidden_states": ROWS, "encoder_attention_mask": ROWS}
    cfg = "batched"

    def embeds(self, call: dict[str, Any]) -> Tensor:
        embeds: Tensor = call["encoder_hidden_states"]
        return embeds.flatten(1, -2)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        return super().pack(call | {"encoder_hidden_states": self.embeds(call)}, negative)
