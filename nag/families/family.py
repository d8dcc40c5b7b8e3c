"""The contract of a model family, and the pieces most families share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.params import NAGParams
from nag.processors.guided import GuidedProcessor
from nag.session import Negative, Session

__all__ = ["Family", "encode_alone", "named_arguments", "on_denoiser", "swap_processors"]


@dataclass(frozen=True)
class Family:
    """How one family of models is entered.

    Attributes:
        name: as `nag` prints it.
        defaults: the numbers used where the caller gives none, and
        source: where they come from.
        matches: whether a pipeline belongs here.
        denoiser: the module that a pipeline of this family calls at each step.
        encode: negative prompts to embeddings, by the pipeline's own encode_prompt and its arguments for the positive.
        enter: puts hooks and processors in place and registers their removal on the stack.
        has_reference: whether `reference=True` means something else than the plain form.

    """

    name: str
    defaults: NAGParams
    source: str
    matches: Callable[[Any], bool]
    denoiser: Callable[[Any], nn.Module]
    encode: Callable[[Callable[..., Any], Sequence[str], dict[str, Any]], Negative]
    enter: Callable[[Any, Session, ExitStack, bool], None]
    has_reference: bool = False


def encode_alone(encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Any:
    """`encode_prompt` for `prompts`, once each; other arguments (length, device, clip_skip, LoRA scale) are kept."""
    changed: dict[str, Any] = {
        name: None for name in arguments if name.endswith("embeds") or name.startswith(("negative_prompt", "prompt_"))
    }
    changed |= {"prompt": list(prompts), "num_images_per_prompt": 1}
    if "do_classifier_free_guidance" in arguments:
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

    def enter_step(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        session.step = None
        return (), before(named_arguments(module.forward, args, kwargs))

    def leave_step(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 (torch's signature)
        session.step = None

    stack.callback(denoiser.register_forward_pre_hook(enter_step, with_kwargs=True).remove)
    stack.callback(denoiser.register_forward_hook(leave_step, always_call=True).remove)


def swap_processors(
    modules: Sequence[Any], guided: Callable[[Any], GuidedProcessor], known: tuple[type, ...], stack: ExitStack
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
        if not isinstance(plain, known):
            raise UnsupportedPipeline(
                f"an attention processor of type {type(plain).__name__} (an IP-Adapter or the like) is in place, "
                "which guidance does not compose with; unload it first"
            )
    for module in modules:
        stack.callback(module.set_processor, module.processor)
        module.set_processor(guided(module.processor))
