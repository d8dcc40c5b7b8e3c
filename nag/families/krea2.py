"""Krea 2: one stream, text first, always masked; every text token is at the rotary origin.

Before the blocks a small transformer fuses the text by itself; both prompts pass it at once, each seeing its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from nag.current import CurrentStep
from nag.families.family import Family
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

__all__ = ["Krea2"]


class Krea2(Family):
    name = "Krea 2"
    models = "base, turbo"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("Krea2Transformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processors = ("Krea2AttnProcessor",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    cfg = "separate"

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        packed = super().pack(call, negative)
        ids, text = call["position_ids"], call["encoder_hidden_states"].shape[1]
        origin = ids.new_zeros(negative.embeds.shape[1], ids.shape[-1])
        packed["position_ids"] = torch.cat([ids[:text], origin, ids[text:]])
        if packed.get("encoder_attention_mask") is not None:
            packed["encoder_attention_mask"] = packed["encoder_attention_mask"].bool()
        return packed

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        def keep_apart(
            module: Any,  # noqa: ARG001 (torch's signature)
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            step = current.step
            if step is None or step.layout is None:
                return args, kwargs
            layout, device = step.layout, args[0].device
            of_negative = torch.arange(layout.text, device=device) >= layout.positive
            own = of_negative[:, None] == of_negative
            mask = kwargs.get("attention_mask")
            return args, kwargs | {"attention_mask": own[None, None] if mask is None else mask & own}

        stack.callback(denoiser.text_fusion.register_forward_pre_hook(keep_apart, with_kwargs=True).remove)
