"""Weights in fewer bits than the repository has them."""

from __future__ import annotations

import importlib.util
from typing import Any

import diffusers
import torch
import transformers

from app.catalog import Model
from app.loading.errors import LoadError
from app.loading.hub import model_index

__all__ = ["quantization_config", "require_package"]


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
