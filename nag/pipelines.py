"""Calls of pipelines: which one is under way, and encoding other prompts by a pipeline's own method."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.modular_pipelines import ModularPipeline, ModularPipelineBlocks

__all__ = ["Arguments", "calling_pipeline", "encode_prompts", "named_arguments"]

#: Arguments of a call, by name.
Arguments = dict[str, Any]


def encode_prompts(encode_prompt: Callable[..., Any], prompts: Sequence[str], arguments: dict[str, Any]) -> Any:
    """Calls `encode_prompt` for `prompts`, once each; other arguments (length, device, clip_skip, LoRA scale) stay."""
    changed: dict[str, Any] = {
        name: None
        for name in arguments
        if name.endswith(("embeds", "embeds_mask", "attention_mask"))
        or (name.startswith(("negative_prompt", "prompt_")) and name != "prompt_template")
    }
    changed |= {"prompt": list(prompts)}
    names = inspect.signature(encode_prompt).parameters
    changed |= {
        name: 1
        for name in ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
        if name in names
    }
    if "do_classifier_free_guidance" in names:
        changed["do_classifier_free_guidance"] = False
    return encode_prompt(**(arguments | changed))


def named_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call by name, whichever way they were passed; those not passed are absent."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def calling_pipeline(kinds: Any = DiffusionPipeline | ModularPipeline | ModularPipelineBlocks) -> Any:
    """Returns the pipeline whose call is under way in this thread, the innermost of several; None outside of one.

    kinds: the classes to look for.
    """
    frame = sys._getframe(1)
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]  # the loop ends there
        if frame.f_code.co_name == "__call__":
            caller = frame.f_locals.get("self")
            if isinstance(caller, kinds):
                return caller
    return None
