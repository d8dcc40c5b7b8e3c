"""What else may be set up on a denoiser: adapters that change keys, caches that skip blocks, and what is refused."""

from __future__ import annotations

from typing import Any

from diffusers.hooks.hooks import StateManager
from torch import nn

from nag.errors import UnsupportedPipeline

__all__ = ["forget_cached_blocks", "refuse_what_does_not_compose", "state_of"]

#: Hooks of diffusers that guidance would make wrong, by their names in the hook registry.
REFUSED_HOOKS = {
    "faster_cache_denoiser": "FasterCache drops rows of the batch behind the pipeline's back; use another cache",
    "text_kv_cache_transformer": "the text K/V cache knows a prompt by its address, and packed prompts share addresses",
}


def refuse_what_does_not_compose(denoiser: Any) -> None:
    """Raises UnsupportedPipeline for what is set up on a denoiser and would be wrong under guidance."""
    if getattr(denoiser, "_parallel_config", None) is not None:
        raise UnsupportedPipeline("context parallelism splits the sequence that guidance packs; disable it first")
    registry = getattr(denoiser, "_diffusers_hook", None)
    for name, why in REFUSED_HOOKS.items():
        if registry is not None and registry.get_hook(name) is not None:
            raise UnsupportedPipeline(why)


def forget_cached_blocks(denoiser: Any) -> None:
    """Drops what diffusers' step caches kept of earlier steps, whose sequence had another length."""
    if not getattr(denoiser, "is_cache_enabled", False):
        return
    registries = [module._diffusers_hook for module in denoiser.modules() if hasattr(module, "_diffusers_hook")]
    states = [
        each
        for registry in registries
        for hook in registry.hooks.values()
        for each in vars(hook).values()
        if isinstance(each, StateManager)
    ]
    # The pipeline's call is within a context of the cache, which a reset would leave.
    contexts = [{name: value for name, value in vars(state).items() if name.endswith("context")} for state in states]
    denoiser._reset_stateful_cache()
    for state, context in zip(states, contexts, strict=True):
        vars(state).update(context)


def state_of(denoiser: nn.Module) -> tuple[Any, ...]:
    """Changes whenever the denoiser's weights or adapters do: identities and versions of its parameters, and of each
    adapted layer which adapters act and how strongly."""
    parameters = tuple((id(parameter), parameter._version) for parameter in denoiser.parameters())
    layers: list[Any] = [m for m in denoiser.modules() if hasattr(m, "active_adapters") and hasattr(m, "scaling")]
    adapters = tuple(
        (tuple(m.active_adapters), tuple(sorted(m.scaling.items())), m.disable_adapters, tuple(m.merged_adapters))
        for m in layers
    )
    return parameters, adapters
