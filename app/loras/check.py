"""Whether a file is a LoRA of a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from app.loras.errors import LoraFileError
from app.loras.header import Header, Tensor, read_header
from app.loras.layout import DENOISER, Pair, pairs_of
from app.loras.structure import Part, Structure
from app.loras.values import DTYPES, check_values

__all__ = ["LoraFacts", "check_lora"]

RANK_MAX = 1024
#: Of the files of diffusers: peft's configuration.
PEFT_METADATA = "lora_adapter_metadata"
#: Settings of it that change what the factors mean.
PEFT_REFUSED = {"use_dora": "DoRA", "lora_bias": "a LoRA with biases"}
#: How much of a file's layers in their authors' names must be the model's for the others to be wrong.
OWN_NAMES_SHARE = 0.5


@dataclass(frozen=True)
class LoraFacts:
    """What a checked file holds: its layers, its largest rank, and the parts of the pipeline that it changes."""

    layers: int
    rank: int
    parts: tuple[str, ...]


def check_lora(file: BinaryIO, structure: Structure | None) -> LoraFacts:
    """Reads a file from its start to its end, in bounded memory.

    Without a structure, its shapes are compared only with each other; the worker that loads it checks the rest.
    Raises LoraFileError.
    """
    header = read_header(file)
    for key, tensor in header.tensors.items():
        if tensor.dtype not in DTYPES:
            raise LoraFileError(f"{key}: dtype must be {', '.join(DTYPES)}, got {tensor.dtype}")
    _check_metadata(header)
    pairs = pairs_of(header.tensors)
    ranks = [_rank(pair, header) for pair in pairs]
    if structure is not None:
        _check_structure(pairs, header, structure)
    check_values(file, header)
    denoiser = DENOISER if structure is None else structure.denoiser
    parts = sorted({denoiser if pair.part == DENOISER else pair.part for pair in pairs})
    return LoraFacts(len(pairs), max(ranks), tuple(parts))


def _check_metadata(header: Header) -> None:
    text = header.metadata.get(PEFT_METADATA)
    if text is None:
        return
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise LoraFileError(f"its {PEFT_METADATA} is not JSON") from exc
    if not isinstance(config, dict):
        raise LoraFileError(f"its {PEFT_METADATA} must be a JSON object")
    for name, kind in PEFT_REFUSED.items():
        if any(key.rpartition(".")[2] == name and value for key, value in config.items()):
            raise LoraFileError(f"{kind} is not supported, only plain LoRA: {name} in its {PEFT_METADATA}")


def _rank(pair: Pair, header: Header) -> int:
    """Returns the rank of a pair whose factors and alpha agree."""
    down, up = (header.tensors[pair.keys[kind]] for kind in ("down", "up"))
    if len(down.shape) < 2 or len(up.shape) < 2:
        raise LoraFileError(f"{pair.name}: factors must have 2 dimensions or more, got {_shapes(down, up)}")
    rank = down.shape[0]
    if rank > RANK_MAX:
        raise LoraFileError(f"{pair.name}: its rank must be at most {RANK_MAX}, got {rank}")
    if rank % up.shape[1]:  # a grouped convolution has a part of the rank for each group
        raise LoraFileError(f"{pair.name}: the ranks of its factors differ, got {_shapes(down, up)}")
    if any(size != 1 for size in up.shape[2:]):
        raise LoraFileError(f"{pair.name}: its second factor must have no kernel, got {_shapes(down, up)}")
    if "alpha" in pair.keys and header.tensors[pair.keys["alpha"]].shape not in ((), (1,)):
        shape = header.tensors[pair.keys["alpha"]].shape
        raise LoraFileError(f"{pair.keys['alpha']}: must be one number, got shape {list(shape)}")
    return rank


def _check_structure(pairs: Sequence[Pair], header: Header, structure: Structure) -> None:
    of_parts: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        of_parts[structure.denoiser if pair.part == DENOISER else pair.part].append(pair)
    for name, own in of_parts.items():
        if name not in structure.parts:
            raise LoraFileError(f"{own[0].name}: the model has no {name}, only {', '.join(structure.parts)}")
        part = structure.parts[name]
        if part is not None:
            _check_part(own, header, name, part)


def _check_part(pairs: Sequence[Pair], header: Header, name: str, part: Part) -> None:
    layers = [_layer(pair, part) for pair in pairs]
    known = sum(layer is not None for layer in layers)
    for pair, layer in zip(pairs, layers, strict=True):
        down, up = (header.tensors[pair.keys[kind]] for kind in ("down", "up"))
        if layer is not None:
            _check_shapes(pair, down, up, f"{name}.{layer}", part.shapes[layer])
        elif not pair.is_foreign or known > OWN_NAMES_SHARE * len(pairs):
            raise LoraFileError(f"{pair.name}: the model has no such layer in its {name}")
        elif down.shape[1] not in part.input_sizes:
            raise LoraFileError(f"{pair.name}: no layer of the model's {name} has {down.shape[1]} inputs")


def _layer(pair: Pair, part: Part) -> str | None:
    """Returns the name of the model's layer; None if it has none by this name."""
    for layer in (pair.layer, pair.layer.replace("text_model.", "", 1), f"text_model.{pair.layer}"):
        if not pair.is_flat and layer in part.shapes:
            return layer
    for layer in (pair.layer, pair.layer.replace("text_model_", "", 1), f"text_model_{pair.layer}"):
        if pair.is_flat and layer in part.by_flat_name:
            return part.by_flat_name[layer]
    return None


def _check_shapes(pair: Pair, down: Tensor, up: Tensor, layer: str, weight: Sequence[int]) -> None:
    """Compares the product of the factors with the weight; a kernel of 1 is as good as none."""
    outputs, inputs, *kernel = weight
    groups = down.shape[0] // up.shape[1]
    got = (up.shape[0], down.shape[1], *_kernel(down.shape[2:]))
    if got != (outputs, inputs * groups, *_kernel(kernel)):
        raise LoraFileError(
            f"{pair.name}: {layer} of the model has the shape {list(weight)}, which factors of {_shapes(down, up)} "
            "do not give"
        )


def _kernel(sizes: Sequence[int]) -> tuple[int, ...]:
    return () if all(size == 1 for size in sizes) else tuple(sizes)


def _shapes(down: Tensor, up: Tensor) -> str:
    return f"{list(down.shape)} and {list(up.shape)}"
