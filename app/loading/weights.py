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
    """Raises LoadError if the entry's quantized weights need a package that is not installed."""
    needed: dict[str, str] = {}
    if entry.quantization is not None and entry.quantization.package is not None:
        needed[entry.quantization.package] = f"quantization.method: {entry.quantization.method}"
    if entry.denoiser is not None and entry.has_gguf:
        needed["gguf"] = f"denoiser: {entry.denoiser.weight_name}"
    for package, what in needed.items():
        if importlib.util.find_spec(package) is None:
            raise LoadError(entry.id, f"{what} needs {package}: pip install it")


def quantization_config(entry: Model, device: torch.device) -> Any:
    """What from_pretrained takes for weights that are quantized while they are loaded. Raises LoadError."""
    require_package(entry)
    assert entry.quantization is not None
    method = entry.quantization.method
    if entry.quantization.package == "bitsandbytes" and device.type == "cpu":
        raise LoadError(entry.id, f"quantization.method: {method} needs a GPU; torchao-int8 runs on a CPU, too")
    index = model_index(entry)
    for name in entry.quantization.components:
        if name not in index:
            raise LoadError(entry.id, f"quantization.components: {index['_class_name']} has no {name}")
    parts = list(entry.quantization.components)
    match method:
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
        case "torchao-int8" | "torchao-fp8":
            from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

            kind = Int8WeightOnlyConfig if method == "torchao-int8" else Float8WeightOnlyConfig
            libraries = {"diffusers": diffusers, "transformers": transformers}
            mapping = {name: libraries[index[name][0]].TorchAoConfig(kind()) for name in parts}
            return diffusers.PipelineQuantizationConfig(quant_mapping=mapping)
