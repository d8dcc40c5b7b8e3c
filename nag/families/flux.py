"""Flux.1: joint attention, text first, every text token at the rotary origin.

The negative prompt's T5 tokens travel behind the positive's. The pooled CLIP prompt stays the positive one, which is
equation (7) to the letter: the same Q against K+ and K−.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families.flux_like import FluxLike
from nag.guided_step import GuidedStep
from nag.negative import NegativeEmbeds
from nag.pipelines import named_arguments
from nag.processors import ReferenceFluxProcessor
from nag.step_hooks import StepHooks, change_argument

__all__ = ["Flux"]


class Flux(FluxLike):
    name = "Flux.1"
    models = "dev, schnell, Kontext, Fill, Control, Redux"
    source = "arXiv 2505.21179, table 5"
    denoiser_types = ("FluxTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("FluxAttnProcessor", "FluxIPAdapterAttnProcessor")
    encoded = ("embeds", "pooled", "text_ids")
    context_parallel: ClassVar[tuple[str, ...]] = denoiser_types
    notes = "equation 7, the positive's pooled prompt; `reference=True` is the authors' form"


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
    context_parallel = ()
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

    def hooks(self, denoiser: Any, hooks: StepHooks) -> None:
        def make_second_temb(step: GuidedStep, args: Any, output: Tensor) -> Tensor:
            step.scratch[TEMB] = denoiser.time_text_embed.forward(*args[:-1], step.negative.pooled)
            return output

        def modulate_text(step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> Any:
            def add(embedding: Tensor) -> Tensor:
                return torch.cat([embedding, step.scratch[TEMB]])

            return change_argument(args, kwargs, 4, "emb", add)

        def modulate_lanes(forward: Any, step: GuidedStep, args: Any, kwargs: dict[str, Any]) -> Any:
            call = named_arguments(forward, args, kwargs)
            image, text = call["hidden_states"], call["encoder_hidden_states"]
            lanes = image if len(image) == len(text) else torch.cat([image, image])
            return (), call | {"hidden_states": lanes, "temb": torch.cat([call["temb"], step.scratch[TEMB]])}

        def take_positive_lane(step: GuidedStep, args: Any, output: Any) -> Any:  # noqa: ARG001 (a hook's signature)
            text, image = output
            return text, image.chunk(2)[0]

        hooks.after(denoiser.time_text_embed, make_second_temb)
        for block in denoiser.transformer_blocks:
            hooks.before(block.norm1_context, modulate_text)
        for block in denoiser.single_transformer_blocks:
            hooks.before(block, functools.partial(modulate_lanes, block.forward))
        for block in denoiser.single_transformer_blocks[-1:]:
            hooks.after(block, take_positive_lane)


Flux.reference = FluxReference()
