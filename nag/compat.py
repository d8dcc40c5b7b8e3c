"""Checks of what else is set up on a denoiser: adapters that change keys, and caches that skip blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import PyramidAttentionBroadcastConfig
from torch import nn

from nag import _diffusers
from nag.errors import UnsupportedPipeline
from nag.processor_swap import class_names, original

if TYPE_CHECKING:
    from nag.families import Family

__all__ = ["check_compatible", "check_unconditional", "is_compiled", "reset_block_caches", "weights_fingerprint"]

#: Hooks of diffusers that guidance would make wrong, by their names in the hook registry.
REFUSED_HOOKS = {
    _diffusers.FASTER_CACHE: "FasterCache drops rows of the batch behind the pipeline's back; use another cache",
    _diffusers.TEXT_KV_CACHE: "the text K/V cache knows a prompt by its address, and packed prompts share addresses",
}


def check_compatible(denoiser: Any, family: Family, *, is_compiled: bool) -> None:
    """Raises UnsupportedPipeline for what is set up on a denoiser and would be wrong under guidance."""
    _check_context_parallelism(denoiser, family, is_compiled=is_compiled)
    registry = _diffusers.hook_registry(denoiser)
    for name, why in REFUSED_HOOKS.items():
        if registry is not None and registry.get_hook(name) is not None:
            raise UnsupportedPipeline(why)


def _check_context_parallelism(denoiser: Any, family: Family, *, is_compiled: bool) -> None:
    groups = _diffusers.token_groups(denoiser)
    if groups is None:
        return
    degrees = {"Ulysses attention": groups.ulysses, "ring attention": groups.ring}
    mode = " and ".join(name for name, group in degrees.items() if group is not None)
    call = f"{family.name} is not guided under context parallelism of {type(denoiser).__name__} ({mode})"
    error = family.find_split_error(denoiser)
    why = "" if error is None else f": {error}"
    if not class_names(denoiser) & set(family.context_parallel):
        only = f", only of {', '.join(family.context_parallel)}" if family.context_parallel else ""
        raise UnsupportedPipeline(f"{call}{only}{why}")
    if error is not None:
        raise UnsupportedPipeline(f"{call}{why}")
    if not _diffusers.is_split_by_own_plan(denoiser):
        raise UnsupportedPipeline(f"{call} by a `cp_plan` of the caller; enable it without one")
    if is_compiled:
        raise UnsupportedPipeline(f"{call} if it is compiled; guide it without `torch.compile`")


def check_unconditional(denoiser: nn.Module) -> None:
    """Raises UnsupportedPipeline if CFG's unconditional call would reuse what guidance left in a cache."""
    if isinstance(_diffusers.cache_config(denoiser), PyramidAttentionBroadcastConfig):
        raise UnsupportedPipeline(
            "PyramidAttentionBroadcast shares attention outputs between CFG's two calls, whose sequences differ in "
            "length under guidance; use another cache, or no CFG"
        )


def reset_block_caches(denoiser: Any) -> None:
    """Drops what diffusers' step caches kept of earlier steps, whose sequence had another length."""
    if getattr(denoiser, "is_cache_enabled", False):
        _diffusers.reset_caches(denoiser)


def weights_fingerprint(denoiser: nn.Module) -> list[Any]:
    """Returns a value that changes whenever the denoiser's weights or adapters do.

    It has the identity, version and address of each parameter, and the adapters of adapted layers with their scales.

    Not seen are values written past autograd into the storage that a parameter has (`parameter.data.mul_(2)`), and,
    where hooks move the weights about between steps, storage that is exchanged (`parameter.data = ...`). Both are seen
    at the pipeline's next call, which keeps nothing of the last.
    """
    state: list[Any] = []
    addresses: list[int] = []
    moved = False
    left: list[Any] = [denoiser]
    # At each step, so by hand: walking by `parameters()` and asking modules for attributes takes twenty times as long.
    while left:
        if (module := left.pop()) is None:  # a child that may be set and is not
            continue
        held = vars(module)
        for parameter in held["_parameters"].values():
            if parameter is not None:
                state.append(id(parameter))
                state.append(0 if parameter.is_inference() else parameter._version)
                addresses.append(parameter.data_ptr())
        if "scaling" in held and hasattr(module, "active_adapters"):
            state.append((tuple(module.active_adapters), tuple(module.scaling.items())))
            state.append((module.disable_adapters, tuple(module.merged_adapters)))
        moved = moved or _diffusers.HOOK_REGISTRY in held or "_hf_hook" in held
        left.extend(held["_modules"].values())
    return state if moved else state + addresses


def is_compiled(denoiser: Any) -> bool:
    """Whether the denoiser or a part of it is compiled."""
    if denoiser is not original(denoiser):
        return True
    return any(
        module._compiled_call_impl is not None or module is not original(module) for module in denoiser.modules()
    )
