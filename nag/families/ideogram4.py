"""Ideogram 4: one stream, `[padding, text | image]`; each token's role, place and segment are told the denoiser.

Padding is a segment of its own. The pipeline's unconditional predictions are another model's, which is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.current import CurrentStep
from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.negative import NegativeEmbeds
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

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        pipeline_call, count = state.pipeline_call, len(self.embeds(call))
        if pipeline_call is not None and state.inside_pipeline_call and count % pipeline_call.prompts == 0:
            pipeline_call.images_per_prompt = count // pipeline_call.prompts  # its encode_prompt is not told
        return super().rows(pipe, state, call)

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

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        def without_the_negative(module: Any, args: Any, output: Tensor) -> Tensor:  # noqa: ARG001 (torch's signature)
            step = current.step
            if step is None or step.layout is None:
                return output
            _, positive, _, image = step.layout.split(output, 1)
            return torch.cat([positive, image], dim=1)

        stack.callback(denoiser.final_layer.register_forward_hook(without_the_negative).remove)
