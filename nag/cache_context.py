"""The role of a denoiser call under CFG, as the pipeline states it by diffusers' `cache_context`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

__all__ = ["is_conditional_context", "watch_cache_context"]

_NAME: ContextVar[str] = ContextVar("nag_cache_context", default="")


def watch_cache_context(denoiser: nn.Module, stack: ExitStack) -> None:
    """Shadows the denoiser's `cache_context`, if it has one, to keep the name in the calling context."""
    method = getattr(denoiser, "cache_context", None)
    if method is None:
        return

    @contextmanager
    @functools.wraps(method)
    def cache_context(name: str | None, *args: Any, **kwargs: Any) -> Iterator[None]:
        token = _NAME.set(name or "")
        try:
            with method(name, *args, **kwargs):
                yield
        finally:
            _NAME.reset(token)

    attributes: dict[str, Any] = vars(denoiser)
    restore = attributes.pop if "cache_context" not in attributes else attributes.__setitem__
    stack.callback(restore, "cache_context", method)
    attributes["cache_context"] = cache_context


def is_conditional_context() -> bool | None:
    """Whether the pipeline says that the denoiser call is for the prompt itself; None if it does not say.

    Guiders put "pred_" before the name. "cond_uncond" is one call with rows of both. Any other name that begins with
    "uncond" or "cond_" is a call that another guidance compares the prompt's with: unconditional, or with perturbed
    attention ("uncond_stg", "pred_cond_skip").
    """
    name = _NAME.get().removeprefix("pred_")
    if name == "cond":
        return True
    return False if name != "cond_uncond" and name.startswith(("uncond", "cond_")) else None
