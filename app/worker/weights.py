"""Files of a repository, and weights in fewer bits than the repository has them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download

from app.catalog import Model, Source
from app.worker.errors import LoadError

__all__ = ["file_of", "model_index", "quantization_config", "require_package"]


def file_of(entry: Model, source: Source, name: str) -> Path:
    """A file of a repository, in its folder or in the hub's cache. Raises LoadError."""
    if (folder := Path(source.repository)).is_dir() and (folder / name).is_file():
        return folder / name
    try:
        return Path(hf_hub_download(source.repository, name, revision=source.revision))
    except (OSError, ValueError) as exc:
        raise LoadError(entry.id, f"{source.repository}/{name}: {' '.join(str(exc).split())}") from exc


def model_index(entry: Model) -> dict[str, Any]:
    """What each part of the repository's pipeline is: its library and class. Raises LoadError."""
    index: dict[str, Any] = json.loads(file_of(entry, entry, "model_index.json").read_bytes())
    return index


def require_package(entry: Model) -> None:
    """Raises LoadError where the entry's quantization needs a package that is not installed."""
    if entry.quantization is not None and importlib.util.find_spec(entry.quantization.package) is None:
        package = entry.quantization.package
        raise LoadError(entry.id, f"quantization.method: {entry.quantization.method} needs {package}: pip install it")


def quantization_config(entry: Model) -> Any:
    """What from_pretrained takes. Raises LoadError."""
    require_package(entry)
    assert entry.quantization is not None
    index = model_index(entry)
    for name in entry.quantization.components:
        if name not in index:
            raise LoadError(entry.id, f"quantization.components: {index['_class_name']} has no {name}")
    parts = list(entry.quantization.components)
    match entry.quantization.method:
        case "bitsandbytes-nf4":
            options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, entry.dtype)}
            return diffusers.PipelineQuantizationConfig(
                quant_backend="bitsandbytes_4bit",
                quant_kwargs={"load_in_4bit": True, **options},
                components_to_quantize=parts,
            )
        case "bitsandbytes-int8":
            return diffusers.PipelineQuantizationConfig(
                quant_backend="bitsandbytes_8bit", quant_kwargs={"load_in_8bit": True}, components_to_quantize=parts
            )
        case "torchao-int8":
            from torchao.quantization import Int8WeightOnlyConfig

            libraries = {"diffusers": diffusers, "transformers": transformers}
            mapping = {name: libraries[index[name][0]].TorchAoConfig(Int8WeightOnlyConfig()) for name in parts}
            return diffusers.PipelineQuantizationConfig(quant_mapping=mapping)
