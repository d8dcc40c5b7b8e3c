"""A catalog entry's LoRAs, in force on its pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.catalog import Lora, Model
from app.loading.errors import LoadError
from app.loading.hub import local_file

__all__ = ["add_loras"]


def add_loras(pipe: Any, entry: Model) -> None:
    """Fuses LoRAs into the weights, or keeps them as adapters. Raises LoadError."""
    fused = [(index, lora) for index, lora in enumerate(entry.lora) if lora.fuse]
    for index, lora in fused:
        name = _load(pipe, entry, index, lora)
        pipe.fuse_lora(components=_parts(pipe, entry, index, name), lora_scale=lora.scale, adapter_names=[name])
    if fused:
        pipe.unload_lora_weights()  # the fused weights stay
    beside = [(index, lora) for index, lora in enumerate(entry.lora) if not lora.fuse]
    names = [_load(pipe, entry, index, lora) for index, lora in beside]
    for (index, _), name in zip(beside, names, strict=True):
        _parts(pipe, entry, index, name)
    if names:
        pipe.set_adapters(names, [lora.scale for _, lora in beside])


def _load(pipe: Any, entry: Model, index: int, lora: Lora) -> str:
    """Loads it as an adapter, and returns the adapter's name."""
    name = f"lora_{index}"
    if not hasattr(pipe, "load_lora_weights"):
        raise LoadError(entry.id, f"lora: {type(pipe).__name__} takes none")
    options = {} if lora.into is None else {f"load_into_{lora.into}": True}
    path = local_file(entry, lora, lora.weight_name)
    try:
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as exc:  # cannot be read, or not of this model's shape
        why = " ".join(str(exc).split())
        raise LoadError(entry.id, f"lora.{index}: {lora.repository}/{lora.weight_name}: {why}") from exc
    return name


def _parts(pipe: Any, entry: Model, index: int, name: str) -> Sequence[str]:
    """Returns the pipeline's parts that it changes. diffusers only warns if a file changes none."""
    adapted = [part for part, names in pipe.get_list_adapters().items() if name in names]
    if not adapted:
        lora = entry.lora[index]
        why = f"{lora.repository}/{lora.weight_name}: none of it belongs to {type(pipe).__name__}"
        raise LoadError(entry.id, f"lora.{index}: {why}")
    return adapted
