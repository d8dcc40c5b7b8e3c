"""How a session learns what its pipeline does: when a call begins and ends, and when its prompt is encoded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from nag.families import Family
from nag.session import Session

__all__ = ["listen_to_calls", "listen_to_encoding"]


def listen_to_encoding(pipe: Any, family: Family, session: Session, stack: ExitStack) -> None:
    """When the pipeline encodes its prompt, with its text encoders in place and its arguments known, the negative is
    encoded too."""

    def listen(name: str) -> None:
        encode_prompt = getattr(pipe, name)
        signature = inspect.signature(encode_prompt)

        def encoded(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            session.encode = functools.partial(family.encode, encode_prompt)
            session.prompts_encoded(dict(signature.bind(*args, **kwargs).arguments))

        _after(pipe, name, encoded, stack)

    for name in family.encoders:
        if hasattr(pipe, name):
            listen(name)


def listen_to_calls(pipe: Any, session: Session, stack: ExitStack) -> None:
    """Tells the session when a call of the pipeline begins and ends. Python looks `__call__` up on the class, so the
    pipeline is of one of its own meanwhile."""
    kind = type(pipe)

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        session.begin_call()
        try:
            return kind.__call__(self, *args, **kwargs)
        finally:
            session.end_call()

    stack.callback(setattr, pipe, "__class__", kind)
    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _after(pipe: Any, name: str, then: Callable[[tuple[Any, ...], dict[str, Any]], None], stack: ExitStack) -> None:
    """Shadows a method on the instance by one that calls `then` after it."""
    method = getattr(pipe, name)

    @functools.wraps(method)
    def shadow(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        then(args, kwargs)
        return result

    stack.callback(pipe.__dict__.pop, name)
    setattr(pipe, name, shadow)
