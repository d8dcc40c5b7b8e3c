"""Components of a pipeline that do not come from its repository as they are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import torch
from safetensors.torch import load_file

from app.catalog import GGUF, Model, Source
from app.loading.errors import LoadError
from app.loading.hub import denoiser_name, local_file, model_index
from app.loading.weights import require_package

__all__ = ["component_dtype", "replaced_components"]


def replaced_components(entry: Model) -> dict[str, Any]:
    """Components by their names in the pipeline, for `from_pretrained`; None for those the entry does without.

    Raises LoadError for weights that do not fit, or cannot be had.
    """
    components: dict[str, Any] = dict.fromkeys(entry.without)
    if entry.denoiser is None and entry.vae is None:
        return components
    index = model_index(entry)
    if entry.denoiser is not None:
        name = denoiser_name(index)
        components[name] = _with_weights(entry, index, name, "denoiser", entry.denoiser, entry.denoiser.weight_name)
    if entry.vae is not None and entry.vae.weight_name is not None:
        components["vae"] = _with_weights(entry, index, "vae", "vae", entry.vae, entry.vae.weight_name)
    elif entry.vae is not None:
        components["vae"] = _whole_vae(entry, index, entry.vae)
    return components


def component_dtype(entry: Model, name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, entry.component_dtypes.get(name, entry.dtype))
    return dtype


def _with_weights(
    entry: Model, index: dict[str, Any], name: str, key: str, source: Source, weight_name: str
) -> torch.nn.Module:
    """Returns the component built to the repository's config, with the weights of one file of another repository."""
    config_path = local_file(entry, entry, f"{name}/config.json")
    if weight_name.endswith(GGUF):
        return _from_gguf(entry, getattr(diffusers, index[name][1]), name, source, config_path.parent)
    config = json.loads(config_path.read_bytes())
    with accelerate.init_empty_weights():  # the weights come at once from the file
        model: torch.nn.Module = getattr(diffusers, index[name][1]).from_config(config)
    path = local_file(entry, source, weight_name)
    dtype = component_dtype(entry, name)
    state = {key: value.to(dtype) for key, value in load_file(path).items()}
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as exc:
        reason = str(exc).splitlines()[1].strip()[:200]
        raise LoadError(entry.id, f"{key}: {path.name}: {reason}") from exc
    return model.eval()


def _from_gguf(entry: Model, kind: Any, name: str, source: Source, config_folder: Path) -> torch.nn.Module:
    """Returns the component with the quantized matrices of a GGUF file, which are unpacked while a layer runs."""
    require_package(entry)
    assert entry.denoiser is not None
    path, dtype = local_file(entry, source, entry.denoiser.weight_name), component_dtype(entry, name)
    try:
        model: torch.nn.Module = kind.from_single_file(
            path,
            config=str(config_folder.parent),
            subfolder=config_folder.name,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            torch_dtype=dtype,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        raise LoadError(entry.id, f"denoiser: {path.name}: {' '.join(str(exc).split())}") from exc
    return model.eval()


def _whole_vae(entry: Model, index: dict[str, Any], source: Source) -> Any:
    kind = getattr(diffusers, index["vae"][1])
    try:
        folder = local_file(entry, source, "config.json").parent
        return kind.from_pretrained(folder, dtype=component_dtype(entry, "vae")).eval()
    except (OSError, ValueError) as exc:
        raise LoadError(entry.id, f"vae: {source.repository}: {' '.join(str(exc).split())}") from exc
