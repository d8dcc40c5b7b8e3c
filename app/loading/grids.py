"""Which sizes a pipeline can make, asked of its class without its parts.

Its own check refuses, or warns of, a size that it would round; a pipeline without parts has the scale of the ones it
was written for.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.catalog import Model, Range

__all__ = ["grid_problems"]

SPATIAL = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
PLAIN = {"prompt": "a", "callback_steps": 1, "callback_on_step_end_tensor_inputs": ["latents"]}


def grid_problems(entry: Model, kind: Any) -> Iterator[str]:
    """Yields the sizes that the entry allows and the pipeline does not make; none if its class does not say."""
    pipe = _without_parts(kind)
    if pipe is None:
        return
    spatial = next((int(getattr(pipe, name)) for name in SPATIAL if hasattr(pipe, name)), 1)
    temporal = next((int(getattr(pipe, name)) for name in TEMPORAL if hasattr(pipe, name)), 1)
    for name, sizes in (("width", entry.width), ("height", entry.height)):
        if any(value % spatial for value in _first(sizes)):
            yield f"{name}.multiple: {kind.__name__} decodes to multiples of {spatial}"
    if entry.num_frames is not None and any((value - 1) % temporal for value in _first(entry.num_frames)):
        yield f"num_frames.multiple: {kind.__name__} decodes to multiples of {temporal}, plus 1"
    messages = {_refusal(pipe, width, height) for width in _first(entry.width) for height in _first(entry.height)}
    yield from sorted(f"width, height: {message}" for message in messages if message is not None)


def _without_parts(kind: Any) -> Any:
    needed = inspect.signature(kind.__init__).parameters.items()
    try:
        return kind(
            **{name: None for name, parameter in needed if name != "self" and parameter.default is parameter.empty}
        )
    except Exception:  # a class that reads its parts in its constructor cannot be asked
        return None


def _first(sizes: Range[int]) -> list[int]:
    """Returns the smallest two values allowed: a grid that both are on, every other is on."""
    values = (value for value in range(sizes.min, sizes.max + 1) if sizes.holds(value))
    return [value for value, _ in zip(values, range(2), strict=False)]


def _refusal(pipe: Any, width: int, height: int) -> str | None:
    check = getattr(pipe, "check_inputs", None)
    if check is None:
        return None
    known = {**PLAIN, "width": width, "height": height}
    arguments = {
        name: known.get(name)
        for name, parameter in inspect.signature(check).parameters.items()
        if name in known or parameter.default is parameter.empty
    }
    with _warnings() as messages:
        try:
            check(**arguments)
        except Exception as exc:  # what is missing besides the size does not matter here
            messages.append(str(exc))
    return next((" ".join(message.split()) for message in messages if "divisible" in message), None)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What diffusers logs meanwhile, kept from the terminal."""
    logger, messages = logging.getLogger("diffusers"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    handlers, level = logger.handlers, logger.level
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
