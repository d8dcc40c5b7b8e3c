"""The layers of a model, by the headers of its weight files: what a LoRA must fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from app.catalog import Model
from app.loras.errors import LoraFileError
from app.loras.header import Tensor, read_header

__all__ = ["Part", "Structure", "find_structure"]

INDEX, WEIGHT = "model_index.json", ".weight"
DENOISERS = ("transformer", "unet")
#: Further tensors of weights that are packed into fewer bits, whose shapes say nothing.
PACKED = (".absmax", ".quant_map", ".weight_scale", ".qweight", ".SCB")
STRUCTURES_KEPT = 16


@dataclass(frozen=True)
class Part:
    """The weights of one part of a pipeline by the names of their layers, as shapes."""

    shapes: Mapping[str, tuple[int, ...]]

    @cached_property
    def by_flat_name(self) -> Mapping[str, str]:
        """The names by themselves with underscores instead of dots."""
        return {name.replace(".", "_"): name for name in self.shapes}

    @cached_property
    def input_sizes(self) -> frozenset[int]:
        return frozenset(shape[1] for shape in self.shapes.values())


@dataclass(frozen=True)
class Structure:
    """The parts of a model that a LoRA can change. None of one: its weights are not on this machine or are packed.

    denoiser: its name among the parts.
    """

    denoiser: str
    parts: Mapping[str, Part | None]


def find_structure(model: Model) -> Structure | None:
    """Reads it from the model's folder or the hub's cache; None if it is not there. Nothing is asked of the network."""
    folder = _folder(model)
    return None if folder is None else _read(folder, model.denoiser is not None)


def _folder(model: Model) -> Path | None:
    if Path(model.repository).is_dir():
        return Path(model.repository)
    try:
        path = huggingface_hub.try_to_load_from_cache(model.repository, INDEX, revision=model.revision)
    except errors.HFValidationError:  # not the name of a repository
        return None
    return Path(path).parent if isinstance(path, str) else None


def _read(folder: Path, has_other_denoiser: bool) -> Structure | None:
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError):
        return None
    names = [name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]]
    denoiser = next((name for name in DENOISERS if name in names), None)
    if denoiser is None:
        return None
    parts = {name: _part(folder / name) for name in names if name.startswith((*DENOISERS, "text_encoder"))}
    if has_other_denoiser:  # whose names need not be diffusers'
        parts[denoiser] = None
    return Structure(denoiser, parts)


def _part(folder: Path) -> Part | None:
    """Reads all of its shards, and its variants, which have the same layers."""
    paths = sorted(folder.glob("*.safetensors"))
    wanted = {name for index in folder.glob("*.safetensors.index.json") for name in _shards(index)}
    if not paths or wanted - {path.name for path in paths}:
        return None
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors |= _tensors(path, path.stat().st_mtime_ns)
        except (OSError, LoraFileError):
            return None
    if any(key.endswith(PACKED) for key in tensors):
        return None
    return Part({key.removesuffix(WEIGHT): tensor.shape for key, tensor in tensors.items() if _is_layer(key, tensor)})


def _is_layer(key: str, tensor: Tensor) -> bool:
    return key.endswith(WEIGHT) and len(tensor.shape) > 1


@lru_cache(64 * STRUCTURES_KEPT)
def _tensors(path: Path, written_ns: int) -> Mapping[str, Tensor]:
    del written_ns  # a file that was written again is read again
    with path.open("rb") as file:
        return read_header(file).tensors


def _shards(index: Path) -> Iterator[str]:
    try:
        yield from json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        yield ""  # no file is called so
