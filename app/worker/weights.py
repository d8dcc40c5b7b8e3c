"""Weights that are not as the repository has them: another denoiser's, or in fewer bits."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

from app.catalog import Model, Source
from app.worker.errors import LoadError

__all__ = ["other_denoiser", "quantization_config", "require_package"]


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


def other_denoiser(entry: Model) -> dict[str, Any]:
    """The denoiser by its name in the pipeline, built to the repository's config with the entry's own weights.

    Nothing where the repository's weights are the entry's. Raises LoadError for weights that do not fit, or are not to
    be had.
    """
    if entry.denoiser is None:
        return {}
    index = model_index(entry)
    name = "unet" if "unet" in index else "transformer"
    config = json.loads(file_of(entry, entry, f"{name}/config.json").read_bytes())
    with accelerate.init_empty_weights():  # the weights come at once from the file
        denoiser = getattr(diffusers, index[name][1]).from_config(config)
    path = file_of(entry, entry.denoiser, entry.denoiser.weight_name)
    dtype = getattr(torch, entry.component_dtypes.get(name, entry.dtype))
    state = {key: value.to(dtype) for key, value in load_file(path).items()}
    try:
        denoiser.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as exc:
        why = str(exc).splitlines()[1].strip()[:200]
        raise LoadError(entry.id, f"denoiser: {path.name}: {why}") from exc
    return {name: denoiser.eval()}


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
