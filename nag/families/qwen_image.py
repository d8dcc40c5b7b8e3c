"""Qwen-Image and its Edit, Layered and ControlNet forms: joint attention, text first, masked where lengths differ.

The text's rotary positions start past the image's and are made from its length alone, so those of both prompts are cut
from the same start. Reference images are image tokens; what the text encoder saw of them is part of either prompt.

NucleusMoE-Image has the same pipeline and the same positions of its text, which attends to nothing. Its experts work on
the image alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import NUMBERS, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.processors.image_query import ImageQueryProcessor
from nag.step_hooks import StepHooks

__all__ = ["NucleusImage", "QwenImage"]


class QwenImage(Family):
    name = "Qwen-Image"
    models = "Qwen-Image, Edit, Edit Plus, Layered, ControlNet, Lightning"
    attention = "joint"
    denoiser_types = ("QwenImageTransformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processors = ("QwenDoubleStreamAttnProcessor2_0",)
    denoiser_mask_arg = "encoder_hidden_states_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    context_parallel: ClassVar[tuple[str, ...]] = ("QwenImageTransformer2DModel",)
    arguments: ClassVar[dict[str, Argument]] = {"additional_t_cond": NUMBERS}
    cfg = "separate"

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        embed = denoiser.pos_embed

        def remember(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if step.split is not None:
                step.scratch["positions"] = args, kwargs
            return args, kwargs

        def restart(step: GuidedStep, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            (image, text), layout = output, step.token_layout
            if step.split is not None:  # these are this rank's; made without the hook that splits them, they are all
                args, kwargs = step.scratch["positions"]
                _, text = type(embed).forward(embed, *args, **kwargs)
            text = torch.cat([text[: layout.positive], text[: layout.negative]])
            return image, text if step.split is None else step.split.part_of_text(text, 0)

        hooks.before(embed, remember)
        hooks.after(embed, restart)


class NucleusImage(QwenImage):
    name = "NucleusMoE-Image"
    models = "NucleusMoE-Image"
    denoiser_types = ("NucleusMoEImageTransformer2DModel",)
    processor_class = ImageQueryProcessor
    processors = ("NucleusMoEAttnProcessor2_0",)
    text_last = True
