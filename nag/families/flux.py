"""Flux.1: joint attention, text first, every text token at the rotary origin.

The negative prompt's T5 tokens travel behind the positive's. The pooled CLIP prompt stays the positive one, which is
equation (7) to the letter: the same Q against K+ and K−.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nag.current import CurrentStep
from nag.encoding import named_arguments
from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families.flux_like import FluxLike
from nag.negative import NegativeEmbeds
from nag.processors import ReferenceFluxProcessor

__all__ = ["Flux"]


class Flux(FluxLike):
    name = "Flux.1"
    models = "dev, schnell, Kontext, Fill, Control, Redux"
    source = "arXiv 2505.21179, table 5"
    denoiser_types = ("FluxTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("FluxAttnProcessor", "FluxIPAdapterAttnProcessor")
    encoded = ("embeds", "pooled", "text_ids")
    exact = "equation 7, the positive's pooled prompt; `reference=True` is the authors' form"


#: The second time embedding of a denoiser call.
TEMB = "negative_temb"


class FluxReference(Flux):
    """The authors' layout: each prompt's text has its own modulation, and single blocks carry a second image lane.

    Text travels as 2B rows, positive first. The pooled negative prompt gives a second time embedding, which modulates
    the negative's text in double blocks and its whole lane in single blocks. The positive lane is the result.

    Raises, when the denoiser is called:

    InvalidParameter: prompts of different length, or no pooled negative prompt.
    UnsupportedPipeline: ControlNet residuals for single blocks, whose lanes they do not fit.
    """

    processor_class = ReferenceFluxProcessor
    processors = ("FluxAttnProcessor",)
    reference = None

    def pack(self, call: dict[str, Any], negative: NegativeEmbeds) -> dict[str, Any]:
        positive = call["encoder_hidden_states"]
        if negative.pooled is None:
            raise InvalidParameter(
                "negative_pooled_prompt_embeds", "the reference layout needs the pooled negative prompt"
            )
        if positive.shape != negative.embeds.shape:
            raise InvalidParameter(
                "negative_prompt_embeds",
                f"the reference layout needs as many tokens as the prompt's {positive.shape[1]}, "
                f"got {negative.embeds.shape[1]}",
            )
        if call.get("controlnet_single_block_samples") is not None:
            raise UnsupportedPipeline("the reference layout does not take ControlNet residuals for single blocks")
        return call | {"encoder_hidden_states": torch.cat([positive, negative.embeds])}

    def hooks(self, denoiser: Any, current: CurrentStep, stack: ExitStack) -> None:
        def make_second_temb(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
            step = current.step
            if step is not None:
                step.scratch[TEMB] = module.forward(*args[:-1], step.negative.pooled)

        def modulate_text(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            step = current.step
            if step is None:
                return args, kwargs
            call = named_arguments(module.forward, args, kwargs)
            return (), call | {"emb": torch.cat([call["emb"], step.scratch[TEMB]])}

        def modulate_lanes(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            step = current.step
            if step is None:
                return args, kwargs
            call = named_arguments(module.forward, args, kwargs)
            image, text = call["hidden_states"], call["encoder_hidden_states"]
            lanes = image if len(image) == len(text) else torch.cat([image, image])
            return (), call | {"hidden_states": lanes, "temb": torch.cat([call["temb"], step.scratch[TEMB]])}

        def take_positive_lane(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001
            if current.step is None:
                return output
            text, image = output
            return text, image.chunk(2)[0]

        stack.callback(denoiser.time_text_embed.register_forward_hook(make_second_temb).remove)
        for block in denoiser.transformer_blocks:
            stack.callback(block.norm1_context.register_forward_pre_hook(modulate_text, with_kwargs=True).remove)
        for block in denoiser.single_transformer_blocks:
            stack.callback(block.register_forward_pre_hook(modulate_lanes, with_kwargs=True).remove)
        for block in denoiser.single_transformer_blocks[-1:]:
            stack.callback(block.register_forward_hook(take_positive_lane).remove)


Flux.reference = FluxReference()
