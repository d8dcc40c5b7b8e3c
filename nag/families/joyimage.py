"""JoyImage: joint attention, image first; the text, with what its encoder saw of images given, stands behind.

JoyImage-Edit masks no padding, so that of a negative is masked here; if it counts its text on the rotary axes, past
the image's, the negative's is counted from the same place. Edit Plus masks, and has no positions for its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nag.families.arguments import REPEATED, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments, encode_prompts
from nag.processors import GuidedProcessor, JointAttentionProcessor
from nag.processors.masked_joint import MaskedJointProcessor, masked_layout
from nag.token_layout import TokenLayout

__all__ = ["JoyImageEdit", "JoyImageEditPlus"]


class _RestartedPositionsProcessor(MaskedJointProcessor):
    """Restarts the text's rotary positions, which were made for both prompts in a row, at the negative prompt."""

    def run(
        self,
        step: GuidedStep,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        image_rotary_emb: Any = None,
        **kwargs: Any,
    ) -> Any:
        layout = step.layout
        if layout is not None and image_rotary_emb is not None and image_rotary_emb[1] is not None:
            image, text = image_rotary_emb
            text = tuple(torch.cat([table[: layout.positive], table[: layout.negative]]) for table in text)
            image_rotary_emb = image, text
        return super().run(step, attn, hidden_states, encoder_hidden_states, image_rotary_emb, **kwargs)


class JoyImageEdit(Family):
    name = "JoyImage-Edit"
    models = "JoyImage-Edit, with an image given or without"
    attention = "joint"
    denoiser_types = ("JoyImageEditTransformer3DModel",)
    attention_modules = ("double_blocks.*.attn",)
    processor_class: ClassVar[type[GuidedProcessor] | None] = _RestartedPositionsProcessor
    processors = ("JoyImageAttnProcessor",)
    negative_mask_arg = "negative_prompt_embeds_mask"
    text_last = True
    cfg: ClassVar[Literal["batched", "separate"]] = "separate"
    encoders = ("encode_prompt", "encode_prompt_multiple_images")

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        positives = arguments.get("prompt")
        if arguments.get("images") is not None and isinstance(positives, list) and len(prompts) == 1:
            prompts = list(prompts) * len(positives)  # each with images of its own
        prompts = [self.format_prompt(prompt, positives, row) for row, prompt in enumerate(prompts)]
        embeds, mask = encode_prompts(encode_prompt, prompts, arguments)
        return NegativeEmbeds(embeds, mask=None if bool(mask.all()) else mask)

    def format_prompt(self, prompt: str, positives: Any, row: int) -> str:  # noqa: ARG002 (for subclasses)
        """Returns a negative prompt in the format in which the pipeline encodes its own prompt."""
        return prompt

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        return masked_layout(super().layout(call, negative), None, negative)


class JoyImageEditPlus(JoyImageEdit):
    name = "JoyImage-Edit Plus"
    models = "JoyImage-Edit Plus, with any number of images given"
    denoiser_types = ("JoyImageEditPlusTransformer3DModel",)
    processor_class = JointAttentionProcessor
    processors = ("JoyImageEditPlusAttnProcessor",)
    denoiser_mask_arg = "encoder_hidden_states_mask"
    arguments: ClassVar[dict[str, Argument]] = {"shape_list": REPEATED}
    cfg = "batched"

    def format_prompt(self, prompt: str, positives: Any, row: int) -> str:
        # The pipeline gives its own prompts with a mark for each image in front.
        positive = positives[min(row, len(positives) - 1)] if isinstance(positives, list) else positives
        match = re.match(r"<\|im_start\|>user\n(?:<image>\n)*", positive or "")
        return f"{match[0]}{prompt}<|im_end|>\n" if match else prompt

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        return Family.layout(self, call, negative)
