"""Cosmos Predict and Transfer: cross attention to T5's tokens (2.5: those of a vision language model).

Transfer 2.5 hands the denoiser the text and an image together; the image has keys of its own and stays as it is. The
first two generations tell noise levels σ in place of timesteps, which `end` reads as σ / (1 + σ) of the whole.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag._diffusers import current_timestep
from nag.families.arguments import ROWS, SHARED, Argument
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams
from nag.processor_swap import class_names

__all__ = ["Cosmos"]


class Cosmos(Family):
    name = "Cosmos"
    models = "Predict 1, 2, 2.5, Transfer 2.5; Anima"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.375)
    source = "as SANA, PixArt, not tuned"
    attention = "cross"
    denoiser_types = ("CosmosTransformer3DModel",)
    attention_modules = ("transformer_blocks.*.attn2",)
    processors = ("CosmosAttnProcessor2_0", "CosmosAttnProcessor2_5")
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {"condition_mask": ROWS, "padding_mask": SHARED}
    cfg = "separate"

    def embeds(self, call: dict[str, Any]) -> Tensor:
        argument = call["encoder_hidden_states"]
        embeds: Tensor = argument[0] if isinstance(argument, tuple) else argument
        return embeds

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        text = torch.cat([self.embeds(call), negative.embeds], dim=1)
        argument = call["encoder_hidden_states"]
        return call | {"encoder_hidden_states": (text, *argument[1:]) if isinstance(argument, tuple) else text}

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:
        scheduled = current_timestep(pipe)
        by_hand = float(call["timestep"].max())
        if "EDMEulerScheduler" in class_names(pipe.scheduler):  # Predict 1: ¼ log σ
            sigma = math.exp(4 * (float(scheduled) if scheduled is not None else by_hand))
            return 1000 * sigma / (1 + sigma)
        if scheduled is None:
            return 1000 * by_hand
        if pipe.scheduler.config.get("sigma_data") is not None:  # Predict 2: 1000 σ, where σ may exceed one
            sigma = float(scheduled) / 1000
            return 1000 * sigma / (1 + sigma)
        return float(scheduled)
