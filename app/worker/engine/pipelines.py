"""How a warm pipeline is called, whatever its family."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from inspect import Signature, signature, unwrap
from itertools import count
from typing import Any

import torch

from app.catalog import Model
from app.jobs import Generation
from app.loading.pipeline import load
from nag import UnsupportedPipeline
from nag.families import Family, family_of

__all__ = [
    "callbacks_of",
    "cfg_arguments",
    "family_or_default",
    "listed",
    "load",
    "resolve_device",
    "signature_of",
    "step_arguments",
]


#: Pipelines that take one prompt and one generator, and no lists of them.
OF_ONE = frozenset({"WanVACEPipeline"})


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def family_or_default(pipe: Any) -> Family:
    """Returns the family of a pipeline; one with the default declarations if it belongs to none."""
    try:
        return family_of(pipe)
    except UnsupportedPipeline:
        return Family()


def cfg_arguments(pipe: Any, entry: Model, request: Generation) -> dict[str, Any]:
    """Returns the arguments by which this model's pipeline takes CFG's scale and negative prompt."""
    scale = request.guidance_scale
    arguments: dict[str, Any] = {}
    if scale > 1:
        arguments |= listed(pipe, negative_prompt=request.negative_prompt or "")
    if entry.embedded_guidance is not None:
        arguments["guidance_scale"] = entry.embedded_guidance
    if entry.cfg != "none":
        arguments[entry.cfg] = scale if scale > 1 else min(scale, family_or_default(pipe).cfg_off)
    return arguments


def listed(pipe: Any, **arguments: Any) -> dict[str, Any]:
    """Returns arguments of which a pipeline takes a list, one entry per image; unlisted for one that takes no lists."""
    return arguments if type(pipe).__name__ in OF_ONE else {name: [value] for name, value in arguments.items()}


def step_arguments(pipe: Any, then: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Arguments that make the pipeline call `then(pipe, index, timestep, {})` after every denoiser step.

    Older pipelines have the `callback` argument instead, which is called once per step of a second-order scheduler.
    For one with neither, the pipeline's scheduler, which must be its own, calls `then` after its steps.
    """
    if _has_step_end(pipe):
        return {"callback_on_step_end": then}
    if "callback" not in signature_of(type(pipe), "__call__").parameters:
        scheduler_step, indices = pipe.scheduler.step, count()

        def step_then(output: torch.Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            stepped = scheduler_step(output, timestep, *args, **kwargs)
            then(pipe, next(indices), timestep, {})
            return stepped

        pipe.scheduler.step = step_then
        return {}

    def callback(step: int, timestep: Any, latents: torch.Tensor) -> None:  # noqa: ARG001 (diffusers' signature)
        then(pipe, step, timestep, {})

    return {"callback": callback, "callback_steps": 1}


def callbacks_of(pipe: Any) -> int:
    """Returns how often the call under way calls back: 2n - 1 times for n steps of a second-order scheduler such as
    Heun.
    """
    timesteps = getattr(pipe, "num_timesteps", None)
    if timesteps is None:
        timesteps = len(pipe.scheduler.timesteps)
    return int(timesteps) if _has_step_end(pipe) else math.ceil(timesteps / getattr(pipe.scheduler, "order", 1))


def _has_step_end(pipe: Any) -> bool:
    return "callback_on_step_end" in signature_of(type(pipe), "__call__").parameters


def signature_of(kind: type, method: str) -> Signature:
    """Returns the signature of a class's method, found once: looking takes longer than much of what a call does."""
    return _signature(unwrap(getattr(kind, method)))


_signature = lru_cache(maxsize=256)(signature)
