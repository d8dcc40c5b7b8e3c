"""The hooks and swaps by which a pipeline is entered, each undone by the exit stack."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.processors import GuidedProcessor
from nag.session import Session

__all__ = [
    "class_names",
    "encode_alone",
    "named_arguments",
    "on_denoiser",
    "original",
    "swap_processors",
]


def original(module: Any) -> Any:
    """The module itself, where `torch.compile` has wrapped it."""
    return getattr(module, "_orig_mod", module)


def class_names(instance: Any) -> set[str]:
    """Names of the instance's class and of all that it inherits from."""
    return {kind.__name__ for kind in type(original(instance)).__mro__}


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
    bound = inspect.signature(function).bind(*args, **kwargs)
    return dict(bound.arguments)


def on_denoiser(
    denoiser: nn.Module, session: Session, stack: ExitStack, before: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Runs `before` on the named arguments of each denoiser call; clears the step after it, exceptions included."""
    forward = original(denoiser).forward

    def enter_step(
        module: nn.Module,  # noqa: ARG001 (torch's signature)
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[tuple[()], dict[str, Any]]:
        session.step = None
        return (), before(named_arguments(forward, args, kwargs))

    def leave_step(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 (torch's signature)
        session.step = None

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
            session.step = None

    stack.callback(setattr, denoiser, "_compiled_call_impl", compiled)
    denoiser._compiled_call_impl = call


def swap_processors(
    modules: Sequence[Any], guided: Callable[[Any], GuidedProcessor], known: tuple[str, ...], stack: ExitStack
) -> None:
    """Puts a guiding processor on each module and the one found there back at exit.

    Raises:
        UnsupportedPipeline: a processor of another kind is in place, whose effect would be lost.
        InvalidParameter: the model is guided already.

    """
    if not modules:
        raise UnsupportedPipeline("the denoiser has no attention to a prompt")
    for module in modules:
        plain = module.processor
        if isinstance(plain, GuidedProcessor):
            raise InvalidParameter("pipe", "its denoiser is guided already; leave the other guide first")
        if not class_names(plain) & set(known):
            raise UnsupportedPipeline(
                f"an attention processor of type {type(plain).__name__} is in place, which guidance does not compose "
                f"with (it does with {', '.join(known)}); unload it first"
            )
    for module in modules:
        stack.callback(_set_processor, module, module.processor)
        _set_processor(module, guided(module.processor))


def _set_processor(module: Any, processor: Any) -> None:
    # A module keeps a processor that has weights of its own (an adapter's) among its children.
    children = module.__dict__.get("_modules", {})
    if isinstance(children.get("processor"), nn.Module) and not isinstance(processor, nn.Module):
        children.pop("processor")
    module.processor = processor
