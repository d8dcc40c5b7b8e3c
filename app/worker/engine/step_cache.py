"""The states of a denoiser's step cache, kept apart for each pipeline call.

Diffusers keeps a state for each name of the `cache_context` in which a pipeline calls its denoiser, and has one name in
force per denoiser. Pipeline calls that take turns would share both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from nag._diffusers import step_cache_states

__all__ = ["CALL_NUMBER", "StepCacheStates"]

#: The number of the pipeline call that runs in this context.
CALL_NUMBER: ContextVar[int] = ContextVar("call_number", default=0)
#: Between the number and the name that the pipeline gives.
SEPARATOR = "/"


class StepCacheStates:
    """Tells the states of pipeline calls apart by names of their own, until the stack closes."""

    def __init__(self, denoiser: nn.Module, stack: ExitStack) -> None:
        self._states = step_cache_states(denoiser)
        if self._states:
            method: Any = denoiser.cache_context

            @contextmanager
            def cache_context(name: str, **where: Any) -> Iterator[None]:
                with method(f"{CALL_NUMBER.get()}{SEPARATOR}{name}", **where):
                    yield

            stack.callback(vars(denoiser).pop, "cache_context")
            vars(denoiser)["cache_context"] = cache_context

    @property
    def context(self) -> Any:
        """The context that the pipeline has entered last; None without a step cache."""
        return self._states[0]._context if self._states else None

    @contextmanager
    def within(self, context: Any) -> Iterator[None]:
        """Calls of the denoiser inside the block use the states of a context."""
        for state in self._states:
            state.set_context(context)
        yield

    def forget(self, call: int) -> None:
        """Drops the states of a pipeline call."""
        for state in self._states:
            for name in [name for name in state._state_cache if name.startswith(f"{call}{SEPARATOR}")]:
                del state._state_cache[name]
