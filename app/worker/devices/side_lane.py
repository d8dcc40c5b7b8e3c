"""A second thread for work beside the denoiser's: autoencoders, on a CUDA stream of their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any

import torch

__all__ = ["SideLane"]


class SideLane:
    """Runs one call after the other.

    Attributes:
        busy_since: of time.monotonic, when the call under way began; 0 between two of them.

    """

    def __init__(self, device: torch.device) -> None:
        self.busy_since = 0.0
        self._begun = self._ended = 0  # each written by one thread
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="side-lane")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way or waits for it."""
        return self._begun > self._ended

    def run(self, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Begins a call, and calls `then` in its thread with what it returned or the exception that it raised."""
        self._begun += 1
        ready = None
        if self._stream is not None:
            ready = torch.cuda.current_stream(self._device).record_event()

        def work() -> None:
            self.busy_since = monotonic()
            try:
                with torch.no_grad(), self._on_stream():
                    if self._stream is not None and ready is not None:
                        self._stream.wait_event(ready)  # what the call reads is written by then
                    result = call()
                    if self._stream is not None:
                        self._stream.synchronize()
            except Exception as error:
                result = error
            self.busy_since = 0.0
            self._ended += 1
            then(result)

        self._thread.submit(work)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
