"""The hooks and swaps by which a pipeline is entered, each undone by the exit stack."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from nag.errors import InvalidParameter
from nag.families.swapping import Processors, original
from nag.session import Session

__all__ = ["encode_alone", "named_arguments", "on_denoiser"]

#: Set on a denoiser that is guided.
MARK = "_nag_guided"


def encode_alone(encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Any:
    """`encode_prompt` for `prompts`, once each; other arguments (length, device, clip_skip, LoRA scale) are kept."""
    changed: dict[str, Any] = {
        name: None
        for name in arguments
        if name.endswith(("embeds", "embeds_mask", "attention_mask"))
        or (name.startswith(("negative_prompt", "prompt_")) and name != "prompt_template")
    }
    changed |= {"prompt": list(prompts)}
    names = inspect.signature(encode_prompt).parameters
    changed |= {name: 1 for name in ("num_images_per_prompt", "num_videos_per_prompt") if name in names}
    if "do_classifier_free_guidance" in names:
        changed["do_classifier_free_guidance"] = False
    return encode_prompt(**(arguments | changed))


def named_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, whichever way they were passed; those not passed are absent."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def on_denoiser(
    denoiser: nn.Module,
    session: Session,
    stack: ExitStack,
    processors: Processors,
    before: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Runs `before` on the named arguments of each denoiser call, and that call, where `before` has set a step, with
    the guiding processors in place; takes both back after it, exceptions included.

    Raises:
        InvalidParameter: the denoiser is guided already.

    """
    if MARK in vars(original(denoiser)):
        raise InvalidParameter("pipe", "its denoiser is guided already; leave the other guide first")
    setattr(original(denoiser), MARK, True)
    stack.callback(delattr, original(denoiser), MARK)
    stack.callback(processors.take_back)
    bind = inspect.signature(original(denoiser).forward).bind

    def leave_step(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 (torch's signature)
        session.step = None
        processors.take_back()

    def enter_step(
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[()], dict[str, Any]]:
        leave_step(module, args, None)  # an interrupt in the last one may have passed it by
        call = before(dict(bind(*args, **kwargs).arguments))
        if session.step is not None:
            processors.put()
        return (), call

    compiled = getattr(denoiser, "_compiled_call_impl", None)
    if compiled is None:
        stack.callback(denoiser.register_forward_pre_hook(enter_step, with_kwargs=True).remove)
        stack.callback(denoiser.register_forward_hook(leave_step, always_call=True).remove)
        return

    # `denoiser.compile()` traces hooks too, and what a step does is decided outside of the graph.
    @functools.wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = enter_step(denoiser, args, kwargs)
            return compiled(*args, **kwargs)
        finally:
            leave_step(denoiser, args, None)

    stack.callback(setattr, denoiser, "_compiled_call_impl", compiled)
    denoiser._compiled_call_impl = call
