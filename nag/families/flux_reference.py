"""The authors' Flux layout: each prompt's text has its own modulation, and single blocks carry a second image lane.

Hooks only. Text travels as 2B rows, positive first. The pooled negative prompt gives a second time embedding, which
modulates the negative's text in double blocks and its whole lane in single blocks. The positive lane is the result.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families.composing import refuse_what_does_not_compose
from nag.families.entering import named_arguments, on_denoiser
from nag.families.swapping import Processors, original
from nag.session import Session, Step

__all__ = ["enter_reference"]


def enter_reference(
    transformer: Any,
    session: Session,
    stack: ExitStack,
    processors: Processors,
    plan: Callable[[dict[str, Any]], Step | None],
) -> None:
    """Registers the hooks of the two-lane form on the stack.

    Raises, when the denoiser is called:
        InvalidParameter: prompts of different length, or no pooled negative prompt.
        UnsupportedPipeline: ControlNet residuals for single blocks, whose lanes they do not fit.

    """
    negative_temb: list[Tensor] = []  # of the denoiser call under way

    def into_lanes(call: dict[str, Any]) -> dict[str, Any]:
        negative_temb.clear()
        step = plan(call)
        if step is None:
            return call
        positive = call["encoder_hidden_states"]
        if step.negative.pooled is None:
            raise InvalidParameter(
                "negative_pooled_prompt_embeds", "the reference layout needs the pooled negative prompt"
            )
        if positive.shape != step.negative.embeds.shape:
            raise InvalidParameter(
                "negative_prompt_embeds",
                f"the reference layout needs as many tokens as the prompt's {positive.shape[1]}, "
                f"got {step.negative.embeds.shape[1]}",
            )
        if call.get("controlnet_single_block_samples") is not None:
            raise UnsupportedPipeline("the reference layout does not take ControlNet residuals for single blocks")
        refuse_what_does_not_compose(transformer)
        processors.renew()
        session.step = step
        return call | {"encoder_hidden_states": torch.cat([positive, step.negative.embeds])}

    def second_temb(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
        if session.step is not None:
            pooled = session.step.negative.pooled
            negative_temb.append(module.forward(*args[:-1], pooled))

    def text_modulation(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if session.step is None:
            return args, kwargs
        call = named_arguments(module.forward, args, kwargs)
        return (), call | {"emb": torch.cat([call["emb"], negative_temb[0]])}

    def lane_modulation(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if session.step is None:
            return args, kwargs
        call = named_arguments(module.forward, args, kwargs)
        image, text = call["hidden_states"], call["encoder_hidden_states"]
        lanes = image if len(image) == len(text) else torch.cat([image, image])
        return (), call | {"hidden_states": lanes, "temb": torch.cat([call["temb"], negative_temb[0]])}

    def positive_lane(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001
        if session.step is None:
            return output
        text, image = output
        return text, image.chunk(2)[0]

    on_denoiser(transformer, session, stack, processors, into_lanes)
    transformer = original(transformer)
    stack.callback(transformer.time_text_embed.register_forward_hook(second_temb).remove)
    for block in transformer.transformer_blocks:
        stack.callback(block.norm1_context.register_forward_pre_hook(text_modulation, with_kwargs=True).remove)
    for block in transformer.single_transformer_blocks:
        stack.callback(block.register_forward_pre_hook(lane_modulation, with_kwargs=True).remove)
    for block in transformer.single_transformer_blocks[-1:]:
        stack.callback(block.register_forward_hook(positive_lane).remove)
