"""Keeps the host at most one module call ahead of the device, and measures how long each call took there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch

__all__ = ["Pace"]


class Pace:
    """Without a limit the host would decide on many steps before the device has done the first of them, so that a new
    or cancelled request would wait for all of them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: tuple[Any, Any, Callable[[float], None]] | None = None

    @contextmanager
    def timed(self, then: Callable[[float], None]) -> Iterator[None]:
        """Times the block; `then(seconds)` is called at once, or on CUDA when the next block has begun."""
        if self._device.type != "cuda":
            begun_s = perf_counter()
            yield
            then(perf_counter() - begun_s)
            return
        stream = torch.cuda.current_stream(self._device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record(stream)
        yield
        end.record(stream)
        last, self._last = self._last, (begin, end, then)
        if last is not None:
            last[1].synchronize()
            last[2](last[0].elapsed_time(last[1]) / 1000)
