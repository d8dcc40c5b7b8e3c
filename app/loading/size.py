"""Disk and memory that a catalog entry takes, computed from the headers of its weight files.

A file's size is not what its weights take once they are loaded: many repositories hold float32, or several precisions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers
from safetensors import SafetensorError, safe_open

from app.catalog import GGUF, Model
from app.catalog.profiles import GB, Footprint, recorded_footprint
from app.loading.errors import LoadError
from app.loading.hub import File, files_of, model_index
from app.loading.speed import skips_casting

__all__ = ["GB", "ModelSize", "footprint", "model_size", "recorded_size"]

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of an element
#: Of stored elements, by their safetensors name. Floats take the entry's dtype when they are loaded, the others stay.
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
OTHERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
#: Bytes of a quantized element with its share of the scales: NF4 has a float32 for 64 elements.
QUANTIZED = {"bitsandbytes-nf4": 0.5 + 4 / 64, "bitsandbytes-int8": 1.0, "torchao-int8": 1.0, "torchao-fp8": 1.0}
NOT_QUANTIZED = ("embed", "shared")  # in the names of matrices that are looked up instead of multiplied
LIBRARIES: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}


@dataclass(frozen=True)
class ModelSize:
    """disk_bytes: the files; None if unknown. loaded_bytes: all weights in memory. host_bytes: main memory that loading
    for a GPU takes, or that an offloaded model keeps. device_bytes: most memory of the GPU that the weights take.
    """

    disk_bytes: int | None
    loaded_bytes: int
    host_bytes: int
    device_bytes: int

    def of_device(self, device_type: str) -> int:
        """Returns the bytes of the device's memory. That of a CPU is the main memory."""
        return self.loaded_bytes if device_type == "cpu" else self.device_bytes


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str  # its safetensors name


def recorded_size(entry: Model) -> ModelSize | None:
    """Returns the size that the catalog states; None if it states none, or that of other weights."""
    size = recorded_footprint(entry)
    if entry.size is None or size is None:
        return None
    disk = None if entry.size.disk_gb is None else round(entry.size.disk_gb * GB)
    loaded = size.device_bytes if entry.offload == "none" else size.host_bytes
    return ModelSize(disk, loaded, size.host_bytes, size.device_bytes)


def footprint(entry: Model) -> Footprint | None:
    """Returns the memory of the weights, by their files if these are on this machine, otherwise as recorded; None if
    unknown.
    """
    size = model_size(entry) or recorded_size(entry)
    return None if size is None else Footprint(size.device_bytes, size.host_bytes)


def model_size(entry: Model) -> ModelSize | None:
    """Returns the size of the weights by the entry's files; None where they are not on this machine or unreadable.

    Loading the model reports what is wrong with them.
    """
    parts: dict[str, int] = {}
    largest = 0  # tensor
    try:
        index, files = model_index(entry), files_of(entry)
        if any(file.path is None for file in files):
            return None
        for file in files:
            for size in _loaded_bytes(entry, index, file):
                parts[file.component] = parts.get(file.component, 0) + size
                largest = max(largest, size)
    except (LoadError, SafetensorError, OSError):
        return None
    loaded = sum(parts.values())
    disk = sum(file.size_bytes for file in files)
    match entry.offload:
        case "none" if entry.quantization is not None and entry.quantization.is_cast:  # in main memory, before it moves
            whole = model_size(entry.model_copy(update={"quantization": None}))
            return ModelSize(disk, loaded, loaded if whole is None else whole.loaded_bytes, loaded)
        case "none":  # a file at a time passes through main memory
            return ModelSize(disk, loaded, max(file.size_bytes for file in files), loaded)
        case "model":
            return ModelSize(disk, loaded, loaded, max(parts.values(), default=0))
        case "group":  # a layer is computed while the next one is copied
            return ModelSize(disk, loaded, loaded, 2 * largest)


def _loaded_bytes(entry: Model, index: Mapping[str, Any], file: File) -> Iterator[int]:
    """Yields the bytes of each of the file's tensors that stay in memory."""
    assert file.path is not None
    if not file.component and any(file.source is lora and lora.fuse for lora in entry.lora):
        return
    if file.path.suffix in (".bin", GGUF):  # says nothing of its tensors, or has them as they stay
        yield file.size_bytes
    if file.path.suffix != ".safetensors":
        return
    dtype = entry.component_dtypes.get(file.component, entry.dtype)
    kind, quantization = _component_class(index, file.component), entry.quantization
    in_float32 = _float32_modules(index, kind, file.component, dtype)
    method = quantization.method if quantization is not None and file.component in quantization.components else None
    tensors = {tensor.name: tensor for tensor in _tensors(file.path)}
    for tensor in tensors.values():
        width = float(WIDTHS[dtype] if tensor.dtype in FLOATS else OTHERS.get(tensor.dtype, 1))
        if tensor.dtype in FLOATS and in_float32.intersection(tensor.name.split(".")):
            width = WIDTHS["float32"]
        elif method == "layerwise-fp8":
            module = tensor.name.rpartition(".")[0]
            weight = tensors.get(f"{module}.weight")  # its bias is cast with it
            if weight is not None and len(weight.shape) > 1 and not skips_casting(kind, module):
                width = 1.0
        elif method is not None and len(tensor.shape) == 2 and not any(word in tensor.name for word in NOT_QUANTIZED):
            width = QUANTIZED[method]
        yield math.ceil(math.prod(tensor.shape) * width)


def _tensors(path: Path) -> Iterator[_Tensor]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            described = file.get_slice(name)
            yield _Tensor(name, tuple(described.get_shape()), described.get_dtype())


def _component_class(index: Mapping[str, Any], component: str) -> Any:
    library, name = index.get(component) or ("", "")
    return getattr(LIBRARIES.get(library), name, None)


def _float32_modules(index: Mapping[str, Any], kind: Any, component: str, dtype: str) -> frozenset[str]:
    """Names of modules that the libraries load in float32 whatever dtype is asked for."""
    if kind is None or dtype == "float32":
        return frozenset()
    kept: list[Collection[str] | None] = [getattr(kind, "_keep_in_fp32_modules_strict", None)]
    if index[component][0] == "diffusers" or dtype == "float16":
        kept.append(getattr(kind, "_keep_in_fp32_modules", None))
    return frozenset(name for names in kept for name in names or ())
