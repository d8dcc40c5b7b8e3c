"""Hooks on a pipeline, which tell when its call begins, encodes its prompt, calls a denoiser and ends."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import nn

from nag.attachment import Plan
from nag.cache_context import is_conditional_context
from nag.compat import check_unconditional, reset_block_caches
from nag.errors import InvalidParameter, UnsupportedPipeline
from nag.families import Family
from nag.guidance_state import GuidanceState
from nag.guided_step import RowGuidance
from nag.negative import NegativeEmbeds
from nag.pipelines import Arguments, calling_pipeline
from nag.schedule import continues_step, scheduler_of

__all__ = ["override_call", "plan_pipeline", "watch_encode_prompt", "watch_pipeline_call"]


def plan_pipeline(pipe: Any, family: Family, state: GuidanceState, denoiser: nn.Module) -> Plan:
    """Returns the plan for calls of `denoiser` by `pipe`, or by user code inside the guide.

    It raises UnsupportedPipeline for a call by another pipeline that shares the denoiser.
    """

    def plan(call: dict[str, Any]) -> Sequence[RowGuidance | None] | None:
        if not state.inside_pipeline_call:
            _refuse_other_pipelines(pipe)
        is_conditional = is_conditional_context()
        rows = None if is_conditional is False else family.rows(pipe, state, call)
        if rows is None:
            if is_conditional:
                raise UnsupportedPipeline(
                    f'{type(pipe).__name__} calls its denoiser twice in a step for the prompt (cache_context "cond"), '
                    "each time with other embeddings: which of them is the prompt is unknown"
                )
            check_unconditional(denoiser)
            return None
        guided_before = None if state.pipeline_call is None else state.pipeline_call.guided
        planned = state.plan_rows(
            family.embeds(call),
            rows,
            lambda: family.timestep(pipe, call),
            frames=family.frames(call),
            continues_step=state.inside_pipeline_call and continues_step(scheduler_of(pipe)),
        )
        if state.pipeline_call is not None and guided_before not in (None, state.pipeline_call.guided):
            reset_block_caches(denoiser)
        return planned

    return plan


def watch_encode_prompt(pipe: Any, family: Family, state: GuidanceState, stack: ExitStack) -> None:
    """Encodes the negative prompt whenever the pipeline encodes its own.

    By then its text encoders are in place and the arguments known.
    """

    def watch(name: str) -> None:
        encode_prompt = getattr(pipe, name)
        signature = inspect.signature(encode_prompt)

        def encode_negative(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            state.encode = functools.partial(
                _encode_negative, pipe, family, encode_prompt, state.extra_negative_prompts
            )
            state.on_prompts_encoded(dict(signature.bind(*args, **kwargs).arguments))

        _call_after(pipe, name, encode_negative, stack)

    for name in family.encoders:
        if hasattr(pipe, name):
            watch(name)
    family.watch_conditions(pipe, state, stack)


def watch_pipeline_call(
    pipe: Any,
    state: GuidanceState,
    contexts: Sequence[Callable[[], AbstractContextManager[None]]],
    stack: ExitStack,
) -> None:
    """Marks the begin and end of each pipeline call in the state, and runs it in contexts, in whatever thread."""

    def run(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        state.begin_call()
        try:
            with ExitStack() as entered:
                for context in contexts:
                    entered.enter_context(context())
                return call(*args, **kwargs)
        finally:
            state.end_call()

    stack.callback(setattr, pipe, "__class__", type(pipe))
    override_call(pipe, run)


def override_call(instance: Any, run: Callable[..., Any]) -> None:
    """Replaces calls of an instance by `run(call, instance, …)`, where `call` is that of its class.

    Python looks `__call__` up on the class, so the instance is of a subclass of its own from then on.
    """
    kind = type(instance)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run(kind.__call__, self, *args, **kwargs)

    instance.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _encode_negative(
    pipe: Any,
    family: Family,
    encode_prompt: Callable[..., Any],
    extra_prompts: Mapping[str, Sequence[str]],
    prompts: Sequence[str],
    arguments: Arguments,
) -> NegativeEmbeds:
    """Encodes negative prompts. Raises InvalidParameter if the pipeline lacks the text encoders for it."""
    encoders = {name: part for name, part in pipe.components.items() if name.startswith(("text_encoder", "tokenizer"))}
    missing = [name for name, part in encoders.items() if part is None]
    try:
        return family.encode(encode_prompt, prompts, arguments, **extra_prompts)
    except Exception as error:
        if not missing:
            raise
        raise InvalidParameter(
            "negative_prompt",
            f"cannot be encoded, {type(pipe).__name__} has no {' and no '.join(missing)}; give negative_prompt_embeds",
        ) from error


def _refuse_other_pipelines(pipe: Any) -> None:
    """Raises UnsupportedPipeline if another pipeline is calling: its layout of rows is unknown."""
    caller = calling_pipeline()
    if caller is not None and caller is not pipe:
        name = type(caller).__name__
        raise UnsupportedPipeline(
            f"{name} was called inside the guide of a {type(pipe).__name__} that shares its denoiser; leave "
            f"that guide, and enter one for the {name} itself: nag.guide(that pipeline, …)"
        )


def _call_after(
    pipe: Any, name: str, then: Callable[[tuple[Any, ...], dict[str, Any]], None], stack: ExitStack
) -> None:
    """Shadows a method on the instance by one that calls `then` after it."""
    method = getattr(pipe, name)

    @functools.wraps(method)
    def shadow(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        then(args, kwargs)
        return result

    stack.callback(pipe.__dict__.pop, name)
    setattr(pipe, name, shadow)
