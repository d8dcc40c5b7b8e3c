"""How a warm pipeline is called, whatever its family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch

from app.catalog import Model
from app.jobs import Generation
from app.worker.loading import load
from app.worker.scales import row_scale

__all__ = ["cfg_arguments", "load", "resolve_device", "step_arguments", "steps_of", "takes_scale_a_row"]

#: Pipelines that guide row by row in Python, so that they do not take a RowScale.
ONE_SCALE = ("ZImage",)
#: Pipelines that extrapolate from the prompt's own prediction: their CFG is off at 0, not at 1.
OFF_AT_ZERO = ("ZImage", "Krea2")


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def takes_scale_a_row(pipe: Any) -> bool:
    """Whether rows of different guidance_scale may share a call."""
    return not type(pipe).__name__.startswith(ONE_SCALE)


def cfg_arguments(pipe: Any, entry: Model, requests: Sequence[Generation]) -> dict[str, Any]:
    """How guidance is asked of this model's pipeline, a scale and a negative prompt a row."""
    scale = row_scale([request.guidance_scale for request in requests])
    arguments: dict[str, Any] = {}
    if scale > 1:
        arguments["negative_prompt"] = [request.negative_prompt or "" for request in requests]
    if entry.embedded_guidance is not None:
        arguments["guidance_scale"] = entry.embedded_guidance
    if entry.cfg != "none":
        off_at_zero = type(pipe).__name__.startswith(OFF_AT_ZERO)
        arguments[entry.cfg] = 0.0 if off_at_zero and scale <= 1 else scale
    return arguments


def step_arguments(pipe: Any, then: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """By which `then(pipe, step, timestep, {})` is called behind each step; older pipelines call back otherwise."""
    if "callback_on_step_end" in signature(type(pipe).__call__).parameters:
        return {"callback_on_step_end": then}

    def callback(step: int, timestep: Any, latents: torch.Tensor) -> None:  # noqa: ARG001 (diffusers' signature)
        then(pipe, step, timestep, {})

    return {"callback": callback, "callback_steps": 1}


def steps_of(pipe: Any) -> int:
    """Steps of the call under way. Older pipelines do not tell; there they are the schedule's."""
    told = getattr(pipe, "num_timesteps", None)
    if told is not None:
        return int(told)
    return math.ceil(len(pipe.scheduler.timesteps) / getattr(pipe.scheduler, "order", 1))
