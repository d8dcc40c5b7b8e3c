"""From a catalog entry to a warm pipeline on a device.

Weights are read from a folder or from the local cache of the Hugging Face hub; app.loading.download fills the latter.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any

import diffusers
import torch
import torch.distributed as dist
import transformers
from safetensors import SafetensorError

import nag
from app.catalog import Model, Scheduler
from app.loading.components import replaced_components
from app.loading.errors import LoadError
from app.loading.hub import INDEX, local_file
from app.loading.loras import add_loras
from app.loading.speed import apply_settings
from app.loading.text_processors import replace_processors
from app.loading.weights import quantization_config

__all__ = ["load", "pipeline_class", "scheduler_class"]

# Both libraries quote the prompt when they warn that they cut it; a prompt is never logged.
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()
replace_processors()


def load(entry: Model, device: torch.device) -> Any:
    """Returns the entry's diffusers pipeline, on the device, in the entry's dtype. Its denoisers are yet to be split.

    Raises LoadError if weights, a package or an option is missing, and nag.UnsupportedPipeline if the catalog promises
    guidance that the pipeline cannot have.
    """
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    if entry.parallel is not None and entry.parallel.devices != ranks:
        raise LoadError(entry.id, f"parallel: asks for {entry.parallel.devices} devices, and this process has {ranks}")
    pipe = _from_pretrained(entry, device)
    if entry.lora:
        add_loras(pipe, entry)
    if entry.scheduler is not None:
        kind = scheduler_class(entry, entry.scheduler)
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **entry.scheduler.changes)
    apply_settings(pipe, entry, device)
    pipe.set_progress_bar_config(disable=True)
    if entry.nag is not None and not nag.supports(pipe):
        raise nag.UnsupportedPipeline(f"{type(pipe).__name__} cannot be guided, but the catalog gives it NAG defaults")
    return pipe


def pipeline_class(entry: Model) -> Any:
    """Raises LoadError if the installed diffusers lacks it."""
    if entry.pipeline is None:
        return diffusers.DiffusionPipeline
    kind = getattr(diffusers, entry.pipeline, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise LoadError(entry.id, f"pipeline: diffusers {diffusers.__version__} has no {entry.pipeline}")
    return kind


def scheduler_class(entry: Model, scheduler: Scheduler) -> Any:
    """Raises LoadError if the installed diffusers lacks it, or if it takes no such option.

    Its from_config would leave an unknown option out with a mere warning.
    """
    kind: Any = getattr(diffusers, scheduler.name, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.SchedulerMixin):
        raise LoadError(entry.id, f"scheduler: diffusers {diffusers.__version__} has no {scheduler.name}")
    takes = inspect.signature(kind).parameters
    for option in scheduler.changes:
        if option not in takes:
            raise LoadError(entry.id, f"scheduler.options.{option}: {scheduler.name} takes no such option")
    return kind


def _from_pretrained(entry: Model, device: torch.device) -> Any:
    dtypes = {name: getattr(torch, dtype) for name, dtype in {**entry.component_dtypes, "default": entry.dtype}.items()}
    options = replaced_components(entry)
    is_cast = entry.quantization is not None and entry.quantization.is_cast
    has_split_weights = entry.parallel is not None and entry.parallel.tensor > 1
    if entry.offload == "none" and not is_cast and not has_split_weights:  # diffusers splits no placed weights
        # Straight to the device, a file at a time, instead of the whole in main memory first.
        options["device_map"] = device.type
    if entry.quantization is not None and not is_cast:
        options["quantization_config"] = quantization_config(entry, device)
    folder = local_file(entry, entry, INDEX).parent
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    try:
        with current:
            pipe = pipeline_class(entry).from_pretrained(folder, variant=entry.variant, dtype=dtypes, **options)
    except (OSError, ValueError, SafetensorError) as exc:  # of weights that are missing or cut off
        raise LoadError(entry.id, f"{entry.repository}: {' '.join(str(exc).split())}") from exc
    for name in entry.component_dtypes:
        if getattr(pipe, name, None) is None:
            raise LoadError(entry.id, f"component_dtypes.{name}: {type(pipe).__name__} has no such part")
    return pipe
