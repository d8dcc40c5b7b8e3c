"""Kandinsky 3: cross attention in a UNet to masked T5 tokens, which are the same at every step.

The tokens are also pooled into the modulation: there the positive's stay alone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from nag._diffusers import CUT_CONTEXT
from nag.families.arguments import NUMBERS, ROWS, Argument
from nag.families.plain_cross import PlainCrossAttention
from nag.guided_step import GuidedStep
from nag.params import NAGParams
from nag.step_hooks import StepHooks

__all__ = ["Kandinsky3"]


class Kandinsky3(PlainCrossAttention):
    name = "Kandinsky 3"
    models = "text to image, image to image"
    defaults = NAGParams(scale=3.0, tau=2.5, alpha=0.375)
    source = "as Stable Diffusion 1.5, not tuned"
    denoiser_types = ("Kandinsky3UNet",)
    denoiser_mask_arg = "encoder_attention_mask"
    negative_mask_arg = "negative_prompt_attention_mask"
    # The mean of all tokens, padding included, enters the modulation: text is not padded.
    arguments: ClassVar[dict[str, Argument]] = {"encoder_hidden_states": ROWS, "encoder_attention_mask": NUMBERS}
    cfg = "batched"
    #: Without padding, as the pipelines always ask for it.
    encode_arguments: ClassVar[dict[str, Any]] = {CUT_CONTEXT: True}
    encoded = ("embeds", "", "mask")

    def attentions(self, denoiser: Any) -> list[Any]:
        # A block's first attention is the image's to itself, though it too was made with a width for a context.
        blocks = (*denoiser.down_blocks, *denoiser.up_blocks)
        return [attn.attention for block in blocks if block.context_dim is not None for attn in block.attentions[1:]]

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def keep_positive(step: GuidedStep, args: tuple[Tensor, Tensor, Tensor], kwargs: Any) -> Any:
            embedded_time, tokens, mask = args
            count = step.token_layout.positive
            return (embedded_time, tokens[:, :count], mask[..., :count]), kwargs

        hooks.before(denoiser.add_time_condition, keep_positive)
