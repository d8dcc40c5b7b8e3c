"""Puts an entry's speed settings in force on its pipeline, and says which of them its classes cannot have."""

from __future__ import annotations

import inspect
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
from diffusers.hooks import apply_layerwise_casting
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
)
from torch import nn

from app.catalog import Model
from app.loading.components import component_dtype
from app.loading.denoisers import denoiser_types, family_of_types
from app.loading.errors import LoadError
from app.loading.parallel import parallel_problems
from nag._diffusers import active_backend, processor_backend
from nag.families.family import DENOISER_NAMES, denoisers_of

__all__ = ["apply_settings", "skips_casting", "speed_problems"]

#: Attention backends that also compute on a CPU, and those among all that compute in float32.
ON_CPU = frozenset({"native", "_native_math", "_native_flash", "flex"})
IN_FLOAT32 = frozenset({"native", "_native_math", "_native_efficient", "flex", "xformers"})
#: Attention backends that take no mask; that of a text which is filled up, for example.
WITHOUT_MASK = frozenset(
    {
        "_native_flash", "flash", "flash_hub", "flash_4_hub", "_flash_3", "_flash_3_hub", "aiter_fa2_hub", "sage",
        "sage_hub", "sage_blackwell_hub", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90",
        "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton",
    }
)  # fmt: skip
#: By method, the class of a step cache's configuration.
CACHES: dict[str, Any] = {
    "first_block": diffusers.FirstBlockCacheConfig,
    "taylorseer": diffusers.TaylorSeerCacheConfig,
    "mag": diffusers.MagCacheConfig,
}
CAST_TO = torch.float8_e4m3fn
#: Names of modules that layerwise casting leaves alone, and diffusers does not name: embeddings, by whose dtype
#: text encoders are asked for theirs, and LoRAs kept apart from the weights.
NOT_CAST = ("embed", "shared", "lora_")


def apply_settings(pipe: Any, entry: Model, device: torch.device) -> None:
    """Puts the settings in force and the pipeline on the device. Raises LoadError for what it cannot have."""
    for name in _cast_components(entry):
        _cast(entry, name, getattr(pipe, name, None))
    if entry.channels_last:
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                _put_channels_last(part)
    match entry.offload:
        case "none":
            pipe.to(device)  # what is not there yet
        case "model":
            pipe.enable_model_cpu_offload(device=device)
        case "group":
            pipe.enable_group_offload(onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda")
    if entry.vae_tiling is True:
        pipe.vae.enable_tiling()
    for denoiser in denoisers_of(pipe):
        if entry.attention != "native":
            _set_attention(entry, denoiser, device)
        if entry.cache is not None:
            denoiser.enable_cache(_cache_config(entry))  # type: ignore[operator]
        if entry.is_compiled:
            _compile(entry, denoiser)


def speed_problems(entry: Model, kind: Any) -> Iterator[str]:
    """Yields a line for each setting that the pipeline class `kind` does not support, or needs a package for."""
    denoisers = denoiser_types(kind)
    names = ", ".join(denoiser.__name__ for denoiser in denoisers)
    if entry.attention != "native":
        if not any(map(_dispatches, denoisers)):
            yield f"attention: {names or kind.__name__} does not compute it by diffusers' dispatcher; leave it out"
        yield from _attention_problems(entry, denoisers)
    if entry.cache is not None:
        yield from _cache_problems(entry, kind, denoisers)
    yield from parallel_problems(entry, kind)
    if entry.compile == "blocks" and not any(getattr(denoiser, "_repeated_blocks", None) for denoiser in denoisers):
        yield f"compile: {names or kind.__name__} names no repeated blocks; use denoiser"
    if entry.offload == "model" and kind.model_cpu_offload_seq is None:
        yield f"offload: {kind.__name__} cannot be offloaded by whole models"
    if entry.vae_tiling is not False and not hasattr(typing.get_type_hints(kind.__init__).get("vae"), "enable_tiling"):
        yield f"vae_tiling: the decoder of {kind.__name__} has no tiles"


def skips_casting(kind: Any, module: str) -> bool:
    """Whether layerwise casting leaves a module of a component alone, by the class and the module's name."""
    return any(re.search(pattern, module) for pattern in _skip_patterns(kind))


# Attention -------------------------------------------------------------------------------------------------------


def _dispatches(denoiser: Any) -> bool:
    """Whether the attention processors beside a denoiser's class, or beside others that it uses, use the dispatcher."""
    module = sys.modules[denoiser.__module__]
    others = {value.__module__ for value in vars(module).values() if isinstance(value, type)}
    beside = [name for name in others if name.rpartition(".")[0] == denoiser.__module__.rpartition(".")[0]]
    return any("dispatch_attention_fn" in vars(sys.modules[name]) for name in (denoiser.__module__, *beside))


def _attention_problems(entry: Model, denoisers: Sequence[type], device: str = "cuda") -> Iterator[str]:
    """Yields a line for each reason that the denoisers cannot use the backend on this kind of device."""
    name = entry.attention
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as exc:
        yield f"attention: {' '.join(str(exc).split())}"
    dtype = next(
        (entry.component_dtypes[part] for part in DENOISER_NAMES if part in entry.component_dtypes), entry.dtype
    )
    if dtype == "float32" and name not in IN_FLOAT32 and not (device == "cpu" and name in ON_CPU):
        yield f"attention: {name} computes in bfloat16 or float16 on a GPU, not in dtype {dtype}"
    family = family_of_types(denoisers)
    if name in WITHOUT_MASK and family is not None and family.has_mask:
        yield f"attention: {name} takes no mask, and the text of {family.name} is masked"


def _set_attention(entry: Model, denoiser: Any, device: torch.device) -> None:
    problem = next(_attention_problems(entry, [type(denoiser)], device.type), None)
    if problem is None and device.type == "cpu" and entry.attention not in ON_CPU:
        problem = f"attention: {entry.attention} needs a GPU, and the device is {device}"
    if problem is not None:
        raise LoadError(entry.id, problem)
    before = active_backend()
    try:
        denoiser.set_attention_backend(entry.attention)
    finally:
        _AttentionBackendRegistry.set_active_backend(before)  # it is also set for every other model of the process
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    if not any(processor_backend(processor) is not None for processor in processors):
        why = f"{type(denoiser).__name__} does not compute it by diffusers' dispatcher; leave it out"
        raise LoadError(entry.id, f"attention: {why}")


# Step caches -----------------------------------------------------------------------------------------------------


def _cache_problems(entry: Model, kind: Any, denoisers: list[Any]) -> Iterator[str]:
    assert entry.cache is not None
    config = CACHES[entry.cache.method]
    takes = inspect.signature(config).parameters
    for option in entry.cache.options:
        if option not in takes:
            yield f"cache.options.{option}: {config.__name__} takes no such option"
    if not any(hasattr(denoiser, "enable_cache") for denoiser in denoisers):
        yield f"cache: the denoiser of {kind.__name__} takes no step cache"
    elif "cache_context" not in inspect.getsource(kind.__call__):
        yield f"cache: {kind.__name__} does not say which of its denoiser calls are for the prompt (cache_context)"


def _cache_config(entry: Model) -> Any:
    assert entry.cache is not None
    options = {
        name: getattr(torch, value) if name.endswith("_dtype") and isinstance(value, str) else value
        for name, value in entry.cache.options.items()
    }
    if entry.cache.method == "mag":
        options["num_inference_steps"] = entry.num_inference_steps.default
    try:
        return CACHES[entry.cache.method](**options)
    except (TypeError, ValueError, AttributeError) as exc:
        raise LoadError(entry.id, f"cache.options: {' '.join(str(exc).split())}") from exc


# Weights ---------------------------------------------------------------------------------------------------------


def _cast_components(entry: Model) -> tuple[str, ...]:
    quantization = entry.quantization
    return quantization.components if quantization is not None and quantization.is_cast else ()


def _cast(entry: Model, name: str, part: Any) -> None:
    if not isinstance(part, nn.Module):
        raise LoadError(entry.id, f"quantization.components: the pipeline has no weights {name}")
    apply_layerwise_casting(
        part, CAST_TO, component_dtype(entry, name), skip_modules_pattern=_skip_patterns(type(part))
    )


def _skip_patterns(kind: Any) -> tuple[str, ...]:
    """Patterns of the names of modules that are not cast."""
    own = getattr(kind, "_skip_layerwise_casting_patterns", None)
    # Modules that are kept in float32 also read the dtype of their own weights.
    in_float32 = getattr(kind, "_keep_in_fp32_modules", None) or ()
    return (
        *(own or DEFAULT_SKIP_MODULES_PATTERN),
        *NOT_CAST,
        *(rf"(^|\.){re.escape(name)}($|\.)" for name in in_float32),
    )


def _put_channels_last(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


# Compilation -----------------------------------------------------------------------------------------------------


def _compile(entry: Model, denoiser: Any) -> None:
    # Beside the weights, so that a process that starts later finds the code that this one has compiled.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(huggingface_hub.constants.HF_HOME) / "inductor"))
    if entry.compile == "denoiser":
        denoiser.compile()
        return
    try:
        denoiser.compile_repeated_blocks()
    except (AttributeError, ValueError) as exc:
        why = f"{type(denoiser).__name__} names no repeated blocks; use denoiser"
        raise LoadError(entry.id, f"compile: {why}") from exc
