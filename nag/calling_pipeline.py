"""Finds the pipeline that is calling a model, which several pipelines may share."""

from __future__ import annotations

import sys
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.modular_pipelines import ModularPipeline, ModularPipelineBlocks

__all__ = ["calling_pipeline"]


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
