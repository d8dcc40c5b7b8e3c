"""Splits a denoiser over the ranks of a worker, and says which denoisers cannot be split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import ContextParallelConfig
from diffusers.models._modeling_parallel import TensorParallelConfig
from torch.distributed.device_mesh import init_device_mesh

from app.catalog import Model, Parallelism
from app.loading.cpu_ranks import allow_cpu_ranks
from app.loading.denoisers import denoiser_types, family_of_types
from app.loading.errors import LoadError
from app.loading.hub import model_index
from nag.families.family import DENOISER_NAMES, denoisers_of

__all__ = ["denoiser_alone", "parallel_problems", "split_denoisers"]


def parallel_problems(entry: Model, kind: Any) -> Iterator[str]:
    """Yields a line for each reason why the denoisers of the pipeline class `kind` cannot be split by `parallel`."""
    if entry.parallel is None:
        return
    denoisers = denoiser_types(kind)
    family = family_of_types(denoisers)
    names = ", ".join(denoiser.__name__ for denoiser in denoisers) or kind.__name__
    if family is None:
        yield f"parallel: {names} is of no family that joins calls, so its calls cannot be split"
    elif entry.parallel.tensor > 1:
        if not any(getattr(denoiser, "_tp_plan", None) for denoiser in denoisers):
            yield f"parallel.tensor: diffusers does not say how the weights of {names} are split"
    elif not {denoiser.__name__ for denoiser in denoisers} & set(family.context_parallel):
        why = f": {family.split_error}" if family.split_error else ""
        yield f"parallel: {names} is not guided exactly if its tokens are split (ulysses, ring){why}"
    elif entry.parallel.ring > 1 and family.has_mask:
        yield f"parallel.ring: takes no mask, and the text of {family.name} is masked"


def denoiser_alone(entry: Model) -> Model:
    """Returns the entry without the parts that rank 0 alone has: text encoders, autoencoder and what belongs to them.

    With LoRAs the parts stay, since a LoRA may change a text encoder.
    """
    if entry.lora:
        return entry
    index = model_index(entry)
    others = [
        name
        for name, kind in index.items()
        if isinstance(kind, list) and name not in (*DENOISER_NAMES, "scheduler", *entry.without)
    ]
    changes: dict[str, Any] = {
        "without": (*entry.without, *others),
        "component_dtypes": {name: dtype for name, dtype in entry.component_dtypes.items() if name not in others},
        "vae": None,
        "vae_tiling": False,
    }
    if entry.quantization is not None:
        kept = tuple(name for name in entry.quantization.components if name not in others)
        changes["quantization"] = entry.quantization.model_copy(update={"components": kept}) if kept else None
    return entry.model_copy(update=changes)


def split_denoisers(pipe: Any, entry: Model, device: torch.device) -> None:
    """Splits the denoisers of a loaded pipeline over all ranks, which must call this at the same time.

    Raises LoadError if they cannot be split.
    """
    assert entry.parallel is not None
    try:
        for denoiser in denoisers_of(pipe):
            if device.type == "cpu":
                allow_cpu_ranks(denoiser)
            denoiser.enable_parallelism(config=_config(entry.parallel, device))  # type: ignore[operator]
    except ValueError as exc:
        raise LoadError(entry.id, f"parallel: {' '.join(str(exc).split())}") from exc


def _config(parallelism: Parallelism, device: torch.device) -> Any:
    if parallelism.tensor > 1:
        return TensorParallelConfig(mesh=init_device_mesh(device.type, (parallelism.tensor,), mesh_dim_names=("tp",)))
    config = ContextParallelConfig(
        ulysses_degree=parallelism.ulysses,
        ring_degree=parallelism.ring,
        # Any number of tokens; diffusers knows this of one kind of split at a time.
        ulysses_anything=parallelism.ring == 1,
        ring_anything=parallelism.ulysses == 1,
    )
    config.mesh = init_device_mesh(device.type, config.mesh_shape, mesh_dim_names=config.mesh_dim_names)
    return config
