"""Two stages on one device: a batch is denoised while the last one is decoded.

Each batch is one pipeline call in one thread from its first line to its last, so that what it decodes is what the
pipeline decodes. The call has the denoise stage to itself; at the end of its last step it moves on to the decode
stage, when that is free, and the next batch enters. So one batch at most waits to be decoded, which bounds the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

__all__ = ["Stages"]


class Stages:
    """Shared by the threads that run batches. Without `overlap`, a batch keeps the denoise stage to its end."""

    def __init__(self, device: torch.device, overlap: bool) -> None:
        self.overlap = overlap
        self._device = device
        self._denoising = threading.Lock()
        self._decoding = threading.RLock()  # a batch that is alone may evict a model, within `quiet`
        self._own = threading.local()

    @contextmanager
    def enter(self, *, alone: bool = False) -> Iterator[Callable[[], bool]]:
        """In the denoise stage; the yielded function moves on to the decode stage, and may wait for it. It returns
        whether another batch may enter now. alone: no other batch is at work until the end.
        """
        with ExitStack() as held, self._stream():
            held.enter_context(self._denoising)
            if alone:
                held.enter_context(self._decoding)

            def move_on() -> bool:
                if not self.overlap or alone:
                    return False
                self._decoding.acquire()
                held.close()
                held.callback(self._decoding.release)
                return True

            yield move_on

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within the denoise stage: nothing is being decoded either."""
        with self._decoding:
            yield

    def _stream(self) -> AbstractContextManager[object]:
        """A stream a thread: what one enqueues does not wait for the other's."""
        if self._device.type != "cuda" or not self.overlap:
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)
