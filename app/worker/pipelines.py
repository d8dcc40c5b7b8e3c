"""From a catalog entry to a warm pipeline on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
import transformers

import nag
from app.catalog import Model
from app.jobs import Generation

__all__ = ["cfg_arguments", "load", "resolve_device"]

#: Families whose pipelines run classifier-free guidance under this name; their `guidance_scale` is a distilled input.
TRUE_CFG = frozenset({"flux"})

# Both libraries quote the prompt when they warn that they cut it; a prompt is never logged.
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load(entry: Model, device: torch.device) -> Any:
    """The entry's diffusers pipeline, on the device, in the entry's dtype.

    Raises nag.UnsupportedPipeline where the catalog promises guidance that the pipeline cannot have.
    """
    pipe = diffusers.DiffusionPipeline.from_pretrained(entry.path, dtype=getattr(torch, entry.dtype))
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    if entry.nag is not None and not nag.supports(pipe):
        raise nag.UnsupportedPipeline(f"{type(pipe).__name__} cannot be guided, but the catalog gives it NAG defaults")
    return pipe


def cfg_arguments(family: str, requests: Sequence[Generation]) -> dict[str, Any]:
    """How classifier-free guidance is asked of this family's pipeline; the requests share one guidance_scale."""
    scale = requests[0].guidance_scale
    negatives = {"negative_prompt": [request.negative_prompt or "" for request in requests]} if scale > 1 else {}
    if family in TRUE_CFG:
        return {"true_cfg_scale": scale, "guidance_scale": 0.0, **negatives}
    return {"guidance_scale": scale, **negatives}
