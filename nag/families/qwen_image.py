"""Qwen-Image and its Edit, Layered and ControlNet forms: joint attention, text first, masked where lengths differ.

The text's rotary positions start past the image's and are made from its length alone, so those of both prompts are cut
from the same start. Reference images are image tokens; what the text encoder saw of them is part of either prompt.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.current import CurrentStep
from nag.families.arguments import NUMBERS, Argument
from nag.families.family import Family
from nag.params import NAGParams

__all__ = ["QwenImage"]


class QwenImage(Family):
    name = "Qwen-Image"
    models = "Qwen-Image, Edit, Edit Plus, Layered, ControlNet, Lightning"
    defaults = NAGParams(scale=5.0, tau=2.5, alpha=0.25)
    source = "as Flux.1, not tuned"
    attention = "joint"
    denoiser_types = ("QwenImageTransformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processors = ("QwenDoubleStreamAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_hidden_states_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    arguments: ClassVar[dict[str, Argument]] = {"additional_t_cond": NUMBERS}
    cfg = "separate"

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        def restart(module: Any, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            step = current.step
            if step is None or step.layout is None:
                return output
            image, text = output
            return image, torch.cat([text[: step.layout.positive], text[: step.layout.negative]])

        stack.callback(denoiser.pos_embed.register_forward_hook(restart).remove)
