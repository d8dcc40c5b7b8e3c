"""Private names of diffusers that guidance needs: one function or constant each, with the reason.

No other module of `nag` uses any. `tests/nag/test_private_names.py` says which of them a release of diffusers changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.distributed as dist
from diffusers.guiders import BaseGuidance
from diffusers.hooks import HookRegistry
from diffusers.hooks.context_parallel import (
    _CONTEXT_PARALLEL_INPUT_HOOK_TEMPLATE,
    _CONTEXT_PARALLEL_OUTPUT_HOOK_TEMPLATE,
)
from diffusers.hooks.hooks import StateManager
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

__all__ = [
    "CUT_CONTEXT",
    "FASTER_CACHE",
    "HOOK_REGISTRY",
    "NATIVE_FLASH",
    "REFINER_ENCODE_PROMPT",
    "TEXT_KV_CACHE",
    "TokenGroups",
    "active_backend",
    "cache_config",
    "cfg_truncation",
    "current_timestep",
    "head_group",
    "hook_registry",
    "is_split_by_own_plan",
    "lumina2_rotary",
    "pipeline_blocks",
    "prediction_name",
    "processor_backend",
    "processor_parallelism",
    "reset_caches",
    "set_current_timestep",
    "set_pipeline_blocks",
    "set_processor_backend",
    "set_processor_parallelism",
    "step_cache_states",
    "token_groups",
    "z_image_padded",
    "z_image_sequence",
]

#: The argument of Kandinsky 3's `encode_prompt` for prompts without padding; its pipelines pass it.
CUT_CONTEXT = "_cut_context"
#: The method by which SANA-WM's refiner encodes its prompt; the pipeline has no public one.
REFINER_ENCODE_PROMPT = "_encode_prompt"
#: Names of hooks in a registry; each is a private constant of the module that registers it.
FASTER_CACHE, TEXT_KV_CACHE = "faster_cache_denoiser", "text_kv_cache_transformer"
#: The attention backend of torch's flash kernels, which also return the log-sum-exp to who calls them.
NATIVE_FLASH = AttentionBackendName._NATIVE_FLASH
#: The attribute of a module that holds its hooks; `HookRegistry.check_if_exists_or_initialize` would make one.
HOOK_REGISTRY = "_diffusers_hook"


def active_backend() -> AttentionBackendName:
    """Returns the process-wide attention backend, which `attention_backend()` sets; there is no public getter."""
    return _AttentionBackendRegistry._active_backend


def processor_backend(processor: Any) -> Any:
    """Returns the backend chosen by `set_attention_backend` for one processor, or None; there is no getter."""
    return getattr(processor, "_attention_backend", None)


def set_processor_backend(processor: Any, backend: Any) -> None:
    """Chooses a processor's backend; `set_attention_backend` takes whole models, and no None."""
    processor._attention_backend = backend


class TokenGroups(NamedTuple):
    """The process groups over which context parallelism splits tokens; None for a degree of 1.

    is_even: whether each rank must have as many tokens as the others.
    """

    ulysses: dist.ProcessGroup | None
    ring: dist.ProcessGroup | None
    is_even: bool


def token_groups(denoiser: Any) -> TokenGroups | None:
    """Returns the groups if `enable_parallelism` has split the denoiser's tokens; there is no getter."""
    config = _parallelism(denoiser, "context_parallel_config")
    if config is None:
        return None
    return TokenGroups(
        config._ulysses_mesh.get_group() if config.ulysses_degree > 1 else None,
        config._ring_mesh.get_group() if config.ring_degree > 1 else None,
        is_even=not (config.ulysses_anything or config.ring_anything),
    )


def head_group(denoiser: Any) -> dist.ProcessGroup | None:
    """Returns the process group if `enable_parallelism` has split the denoiser's weights; there is no getter."""
    config = _parallelism(denoiser, "tensor_parallel_config")
    return None if config is None else config._mesh.get_group()


def _parallelism(denoiser: Any, kind: str) -> Any:
    return getattr(getattr(denoiser, "_parallel_config", None), kind, None)


def is_split_by_own_plan(denoiser: Any) -> bool:
    """Whether context parallelism splits the denoiser as its class says, not by a `cp_plan` of the caller.

    The plan is not kept: it is known by the hooks that it registered, which keep their parts of it.
    """
    plan = denoiser._cp_plan or {}
    templates = _CONTEXT_PARALLEL_INPUT_HOOK_TEMPLATE, _CONTEXT_PARALLEL_OUTPUT_HOOK_TEMPLATE
    prefixes = tuple(template.format("") for template in templates)
    registered = {
        name: hook.metadata
        for module in denoiser.modules()
        if (registry := hook_registry(module)) is not None
        for name, hook in registry.hooks.items()
        if name.startswith(prefixes)
    }
    return registered == {
        templates[not isinstance(part, dict)].format(name): part if isinstance(part, (dict, list, tuple)) else [part]
        for name, part in plan.items()
    }


def processor_parallelism(processor: Any) -> Any:
    """Returns what `enable_parallelism` has set on one processor, by which its attention exchanges tokens, or None."""
    return getattr(processor, "_parallel_config", None)


def set_processor_parallelism(processor: Any, config: Any) -> None:
    """Writes what `processor_parallelism` reads; with None, attention is to the tokens of its own rank."""
    processor._parallel_config = config


def cache_config(denoiser: Any) -> Any:
    """Returns the configuration given to `enable_cache`, or None; only whether there is one is public."""
    return getattr(denoiser, "_cache_config", None)


def hook_registry(module: Any) -> HookRegistry | None:
    """Returns the module's hooks, or None."""
    return getattr(module, HOOK_REGISTRY, None)


def step_cache_states(denoiser: Any) -> list[StateManager]:
    """Returns the states that step caches keep, by the name of the `cache_context`; diffusers has no list of them."""
    return [state for hook in _stateful_hooks(denoiser) for state in _states(hook)]


def reset_caches(denoiser: Any) -> None:
    """Drops what step caches kept within the pipeline's `cache_context`; a reset would drop that of every context."""
    for hook, module in _stateful_hooks(denoiser).items():
        states = _states(hook)
        if not states:  # it does not distinguish contexts
            hook.reset_state(module)
        for state in states:
            if state._context is None:
                state.reset()
            else:
                state._state_cache.pop(state._context.name, None)


def _stateful_hooks(denoiser: Any) -> dict[Any, Any]:
    """Returns the hooks that keep state between steps, with their modules."""
    registries = ((hook_registry(module), module) for module in denoiser.modules())
    return {
        hook: module
        for registry, module in registries
        if registry is not None
        for hook in registry.hooks.values()
        if hook._is_stateful
    }


def _states(hook: Any) -> list[StateManager]:
    return [value for value in vars(hook).values() if isinstance(value, StateManager)]


def current_timestep(pipe: Any) -> Any:
    """Returns the timestep of the pipeline's loop in the scheduler's unit, or None; not all have a property for it."""
    return getattr(pipe, "_current_timestep", None)


def set_current_timestep(pipe: Any, timestep: Any) -> None:
    """Writes what `current_timestep` reads, for loops of modular pipelines, which keep it nowhere; None removes it."""
    if timestep is None:
        vars(pipe).pop("_current_timestep", None)
    else:
        pipe._current_timestep = timestep


def pipeline_blocks(pipe: Any) -> Any:
    """Returns the blocks that a modular pipeline runs; `pipe.blocks` is a copy of them."""
    return pipe._blocks


def set_pipeline_blocks(pipe: Any, blocks: Any) -> None:
    """Makes a modular pipeline run other blocks; the public way is to make a new pipeline of them."""
    pipe._blocks = blocks


def prediction_name(batch: Any) -> str:
    """Returns which of its predictions a guider has prepared this batch for."""
    name: str = getattr(batch, BaseGuidance._identifier_key)
    return name


def cfg_truncation(pipe: Any) -> float | None:
    """Returns the share of the schedule after which a Z-Image pipeline leaves CFG, or None for never."""
    truncation: float | None = pipe._cfg_truncation
    return truncation


def z_image_padded(denoiser: Any, text: Tensor, size: int) -> tuple[Any, ...]:
    """Returns a text (L, C) filled up, its places and its padding, as Z-Image's forward embeds its own."""
    padded: tuple[Any, ...] = denoiser._pad_with_ids(text, (size, 1, 1), (1, 0, 0), text.device)
    return padded


def z_image_sequence(
    denoiser: Any, texts: list[Tensor], places: list[Tensor], padding: list[Tensor]
) -> tuple[Any, ...]:
    """Returns embedded texts as a batch, its rotary positions and its mask, as Z-Image's refiner takes them."""
    sequence: tuple[Any, ...] = denoiser._prepare_sequence(
        texts, places, padding, denoiser.cap_pad_token, None, texts[0].device
    )
    return sequence


def lumina2_rotary(denoiser: Any, places: Tensor) -> Tensor:
    """Returns rotary positions (B, L, D) of places (B, L, 3); Lumina 2's `forward` makes them for whole rows only."""
    rotary: Tensor = denoiser.rope_embedder._get_freqs_cis(places)
    return rotary
