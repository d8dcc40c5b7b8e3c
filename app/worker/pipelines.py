"""How a warm pipeline is called, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch

from app.catalog import Model
from app.jobs import Generation
from app.worker.loading import load

__all__ = ["cfg_arguments", "load", "resolve_device", "step_arguments", "steps_of"]


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def cfg_arguments(entry: Model, requests: Sequence[Generation]) -> dict[str, Any]:
    """How guidance is asked of this model's pipeline; the requests share one guidance_scale."""
    scale = requests[0].guidance_scale
    arguments: dict[str, Any] = {}
    if scale > 1:
        arguments["negative_prompt"] = [request.negative_prompt or "" for request in requests]
    if entry.embedded_guidance is not None:
        arguments["guidance_scale"] = entry.embedded_guidance
    if entry.cfg != "none":
        arguments[entry.cfg] = scale
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
    return int(told) if told is not None else len(pipe.scheduler.timesteps)
