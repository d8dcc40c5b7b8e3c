"""Kandinsky 3: cross attention in a UNet to masked T5 tokens, which are the same at every step.

The tokens are also pooled into the modulation: there the positive's stay alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from torch import Tensor

from nag._diffusers import CUT_CONTEXT
from nag.current import CurrentStep
from nag.encoding import Arguments, encode_alone
from nag.families.arguments import NUMBERS, ROWS, Argument
from nag.families.plain_cross import PlainCrossAttention
from nag.negative import NegativeEmbeds
from nag.params import NAGParams

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

    def attentions(self, denoiser: Any) -> list[Any]:
        # A block's first attention is the image's to itself, though it too was made with a width for a context.
        blocks = (*denoiser.down_blocks, *denoiser.up_blocks)
        return [attn.attention for block in blocks if block.context_dim is not None for attn in block.attentions[1:]]

    def encode(self, encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: Arguments) -> NegativeEmbeds:
        # Without padding, as the pipelines always ask for it.
        embeds, _, mask, _ = encode_alone(encode_prompt, prompts, arguments | {CUT_CONTEXT: True})
        return NegativeEmbeds(embeds, mask=mask)

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        def positive_alone(module: Any, args: tuple[Tensor, Tensor, Tensor]) -> Any:  # noqa: ARG001 (torch's signature)
            step = current.step
            if step is None or step.layout is None:
                return args
            embedded_time, tokens, mask = args
            count = step.layout.positive
            return embedded_time, tokens[:, :count], mask[..., :count]

        stack.callback(denoiser.add_time_condition.register_forward_pre_hook(positive_alone).remove)
