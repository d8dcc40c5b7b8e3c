"""Pipeline calls as coroutines: one is suspended wherever it calls a module that other pipeline calls share.

A coroutine is a greenlet, so it can be suspended deep inside of diffusers' code. All of them run in one thread, one at
a time; the caller that resumes them, the hub, calls the shared modules for them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import greenlet
from torch import nn

__all__ = ["Coroutine", "suspend_calls", "suspend_method"]

#: Makes of the arguments of a module call, in the coroutine that makes it, what the hub gets.
Prepare = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Coroutine:
    """A function that runs until it calls a shared module.

    Attributes:
        suspended: the module call that it waits for, as its module's `Prepare` made it; None before the first and at
            its end.
        result: what the function returned, once it has ended.
        error: what it raised.

    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.suspended: Any = None
        self.result: Any = None
        self.error: Exception | None = None
        self._greenlet = _CallGreenlet(function)

    @property
    def has_ended(self) -> bool:
        """Whether the function has returned or raised."""
        return bool(self._greenlet.dead)

    def start(self) -> None:
        """Runs the function up to its first call of a shared module, or to its end."""
        self._switch(self._greenlet.switch)

    def resume(self, output: Any) -> None:
        """Continues with what the shared module returned."""
        self._switch(self._greenlet.switch, output)

    def throw(self, error: Exception) -> None:
        """Raises an exception where the coroutine is suspended. One that has not started never runs."""
        self._switch(self._greenlet.throw, error)

    def _switch(self, switch: Callable[..., Any], *values: Any) -> None:
        self.suspended = None
        self._greenlet.parent = greenlet.getcurrent()
        try:
            value = switch(*values)
        except Exception as error:  # of the function: its outcome
            self.error = error
            return
        if self.has_ended:
            self.result = value
        else:
            self.suspended = value


class _CallGreenlet(greenlet.greenlet):
    """Tells the code of a coroutine from that of the hub."""


def suspend_calls(module: nn.Module, prepare: Prepare, stack: ExitStack) -> Callable[..., Any]:
    """Makes a call of the module from a coroutine suspend it, until the stack closes; elsewhere it stays as it is.

    Returns:
        The module's own call, for the hub.

    """
    # In the place of the whole call: a hook would be compiled with the module.
    compiled = module._compiled_call_impl
    inner: Callable[..., Any] = compiled or module._call_impl
    stack.callback(setattr, module, "_compiled_call_impl", compiled)
    module._compiled_call_impl = _suspending(inner, prepare)
    return inner


def suspend_method(module: nn.Module, name: str, prepare: Prepare, stack: ExitStack) -> Callable[..., Any]:
    """Returns the same for a method of the module, such as an autoencoder's `decode`."""
    inner: Callable[..., Any] = getattr(module, name)
    own = vars(module)
    if name in own:
        stack.callback(setattr, module, name, inner)
    else:
        stack.callback(own.pop, name)
    own[name] = _suspending(inner, prepare)
    return inner


def _suspending(inner: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        current = greenlet.getcurrent()
        if not isinstance(current, _CallGreenlet) or current.parent is None:
            return inner(*args, **kwargs)
        return current.parent.switch(prepare(args, kwargs))

    return call
