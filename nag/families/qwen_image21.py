"""Qwen-Image 2.1: one causal sequence, `[images given and the template's words | prompt | image]`.

The text never sees the image, so its keys are the same at every step and are kept after the first. Those of guided
steps, with both prompts', are kept apart from the pipeline's own. What stands ahead of the prompt is the same for both.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.families.arguments import ROWS, Argument
from nag.families.family import Family
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.processors.causal import CausalTextProcessor
from nag.step_hooks import StepHooks
from nag.token_layout import TokenLayout

__all__ = ["QwenImage21"]

#: The image's tokens for each place that the text encoder keeps for an image.
TOKENS_PER_SLOT = 4


class QwenImage21(Family):
    name = "Qwen-Image 2.1"
    models = "Qwen-Image 2.1, with images given or without"
    attention = "joint"
    denoiser_types = ("QwenImage21Transformer2DModel",)
    attention_modules = ("transformer_blocks.*.attn",)
    processor_class = CausalTextProcessor
    processors = ("QwenImage21AttnProcessor",)
    denoiser_mask_arg = "encoder_hidden_states_mask"
    negative_mask_arg = "negative_prompt_embeds_mask"
    timestep_unit = 1000.0
    # The image's place depends on the longest text, so text is not padded.
    arguments: ClassVar[dict[str, Argument]] = {"encoder_hidden_states": ROWS, "img_mask": ROWS}
    join_note = "of pipelines called with `use_kv_cache=False`"
    cfg = "separate"
    encode_arguments: ClassVar[dict[str, Any]] = {"image_pad_mask": None}
    compiled = "in parts"

    def adapt_step(self, step: GuidedStep | None, call: dict[str, Any]) -> GuidedStep | None:
        cache = call.get("kv_cache")
        if cache is not None:
            if step is not None:
                call["kv_cache"] = cache = self._with_both(cache)
            kept = cache.get_layer(0).k is not None
            call["kv_cache_mode"] = "cached" if kept else "extract"
        return step

    @staticmethod
    def _with_both(cache: Any) -> Any:
        """Returns the cache with both prompts' keys that belongs to the pipeline's own cache."""
        both = getattr(cache, "_nag_both", None)
        if both is None:
            both = cache._nag_both = type(cache)(len(cache.layer_caches))
        return both

    def layout(self, call: dict[str, Any], negative: NegativeEmbeds) -> TokenLayout:
        start = self._start(call)
        reference_tokens = sum(math.prod(shape) for shape in call["img_shapes"][0][:-1])
        slots = reference_tokens // TOKENS_PER_SLOT
        positive, negative_count = (embeds.shape[1] - start for embeds in (self.embeds(call), negative.embeds))
        return TokenLayout(positive, negative_count, shared=start - slots + reference_tokens)

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        start, text = self._start(call), self.embeds(call).shape[1]
        mask = None if negative.mask is None else negative.mask[:, start:]
        prompt = NegativeEmbeds(negative.embeds[:, start:], mask=mask)
        slots = call["img_mask"]
        none = slots.new_zeros(len(slots), prompt.embeds.shape[1])
        return super().pack(call, prompt) | {"img_mask": torch.cat([slots[:, :text], none, slots[:, text:]], dim=1)}

    @staticmethod
    def _start(call: dict[str, Any]) -> int:
        """Returns the place of the prompt's first word, which is behind the last image given."""
        if len(call["img_shapes"][0]) == 1:
            return 0
        text = call["encoder_hidden_states"].shape[1]
        return int(call["img_mask"][0, :text].nonzero().max()) + 1

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        embed = denoiser.pos_embed

        def restart(step: GuidedStep, args: Any, output: Tensor) -> Tensor:
            layout, (shapes, slots) = step.token_layout, args
            step.scratch["tokens"] = len(slots)
            first, second, image = layout.shared, layout.shared + layout.positive, layout.shared + layout.text
            # The image stands where it does without the negative.
            plain = embed.forward(shapes, torch.cat([slots[:second], slots[image:]]), device=output.device)
            alone = embed.forward(shapes, torch.cat([slots[:first], slots[second:]]), device=output.device)
            return torch.cat([plain[:second], alone[first : first + layout.negative], plain[second:]])

        def drop_negative(step: GuidedStep, args: Any, output: Tensor) -> Tensor:  # noqa: ARG001 (a hook's signature)
            if output.shape[1] != step.scratch.get("tokens"):
                return output
            return step.token_layout.of_one(output, 1, negative=False)

        hooks.after(denoiser.proj_out, drop_negative)
        hooks.after(embed, restart)
