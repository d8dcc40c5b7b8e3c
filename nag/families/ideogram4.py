"""Ideogram 4: one stream, `[padding, text | image]`; the denoiser gets each token's role, place and segment.

Padding is a segment of its own. The pipeline's unconditional predictions are another model's, which is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["Ideogram4"]

#: What the model calls padding, image and text, and the segments of padding and of all else.
ROLES = {"padding": 0, "image": 2, "text": 3}
PADDING, TOGETHER = -1, 1


class Ideogram4(Family):
    name = "Ideogram 4"
    models = "Ideogram 4"
    attention = "joint"
    denoiser_types = ("Ideogram4Transformer2DModel",)
    attention_modules = ("layers.*.attention",)
    processors = ("Ideogram4AttnProcessor",)
    negative_mask_arg = "negative_prompt_attention_mask"
    timestep_unit = 1000.0
    timestep_rises = True
    arguments: ClassVar[dict[str, Argument]] = dict.fromkeys(("position_ids", "segment_ids", "indicator"), ROWS)
    cfg = "separate"
    tells_copies = False
    encoded = ("embeds", "", "", "roles")

    def negative_embeds(self, encoded: Mapping[str, Any]) -> NegativeEmbeds:
        if "roles" in encoded:
            embeds, mask = encoded["embeds"], encoded["roles"] == ROLES["text"]
        else:
            embeds = encoded["text_features"]
            lengths = torch.tensor(encoded["text_lengths"], device=embeds.device)
            mask = torch.arange(embeds.shape[1], 0, -1, device=embeds.device) <= lengths[:, None]
        used = mask.any(dim=0).nonzero()  # it pads to the longest prompt that it takes
        tokens = slice(int(used.min()), int(used.max()) + 1)
        return NegativeEmbeds(embeds[:, tokens], mask=mask[:, tokens])

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        image = int((call["indicator"][0] == ROLES["image"]).sum())
        return TokenLayout(self.embeds(call).shape[1] - image, negative.embeds.shape[1])

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        embeds, text = negative.embeds, self.layout(call, negative).positive
        mask = negative.token_mask.bool()
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        latents = call["hidden_states"]
        of_negative = {
            "hidden_states": latents.new_zeros(*embeds.shape[:2], latents.shape[-1]),
            "encoder_hidden_states": embeds,
            "position_ids": places[..., None].expand(-1, -1, 3),
            "segment_ids": torch.where(mask, TOGETHER, PADDING),
            "indicator": torch.where(mask, ROLES["text"], ROLES["padding"]),
        }
        return call | {
            name: torch.cat([call[name][:, :text], tokens.to(call[name].dtype), call[name][:, text:]], dim=1)
            for name, tokens in of_negative.items()
        }

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def drop_negative(step: GuidedStep, args: Any, output: Tensor) -> Tensor:  # noqa: ARG001 (a hook's signature)
            return step.token_layout.of_one(output, 1, negative=False)

        hooks.after(denoiser.final_layer, drop_negative)
