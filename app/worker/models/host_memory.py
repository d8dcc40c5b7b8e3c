"""Evicted models in main memory, under a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.logs import Log
from app.worker.devices import memory

__all__ = ["HostMemory", "HostPipeline"]

#: Smaller tensors are left pageable: locking is by whole pages, and few small ones take little time to copy.
LOCKED_MIN_BYTES = 2**20
_log = Log("worker")


@dataclass(eq=False)
class HostPipeline:
    """A pipeline whose weights are in main memory.

    Attributes:
        pipe: the pipeline.
        bytes: of its weights.
        locked: those whose pages are locked; they must live until they are unlocked.

    """

    pipe: Any
    bytes: int
    locked: tuple[torch.Tensor, ...]

    def move_to(self, device: torch.device) -> Any:
        """Moves the weights to a device, and returns the pipeline, which is kept here no longer."""
        pipe, self.pipe = self.pipe, None
        try:
            memory.move(pipe, device)
        finally:
            self.unlock()
        return pipe

    def unlock(self) -> None:
        """Makes the weights ordinary memory, which can be freed."""
        for tensor in self.locked:
            memory.unlock_pages(tensor)
        self.locked = ()


class HostMemory:
    """Keeps evicted pipelines within a budget of bytes; the one that was evicted first makes room.

    Large weights are page-locked, if the system allows it: a GPU copies from such memory without a copy in between.
    """

    def __init__(self, budget_bytes: int, device: torch.device) -> None:
        self._budget_bytes = 0 if device.type == "cpu" else budget_bytes  # a CPU's models are there already
        self._waiting: OrderedDict[str, HostPipeline] = OrderedDict()  # the latest evicted last

    def __contains__(self, model: str) -> bool:
        return model in self._waiting

    @property
    def used_bytes(self) -> int:
        """Bytes of the weights that are kept."""
        return sum(waiting.bytes for waiting in self._waiting.values())

    def put(self, model: str, pipe: Any) -> None:
        """Moves the weights of a pipeline here, unless they alone exceed the budget."""
        size = memory.held_bytes(pipe)
        if size > self._budget_bytes:
            return
        self._free(size)
        memory.move(pipe, torch.device("cpu"))
        self._waiting[model] = HostPipeline(pipe, size, tuple(_lock(pipe)))

    def pop(self, model: str) -> HostPipeline | None:
        """Takes a pipeline out; None if it is not here."""
        return self._waiting.pop(model, None)

    def put_back(self, model: str, waiting: HostPipeline | None) -> None:
        """Undoes `pop`."""
        if waiting is not None:
            self._free(waiting.bytes)
            self._waiting[model] = waiting

    def _free(self, size: int) -> None:
        while self._waiting and self.used_bytes + size > self._budget_bytes:
            self._waiting.popitem(last=False)[1].unlock()


def _lock(pipe: Any) -> Iterator[torch.Tensor]:
    """Locks the pages of large weights and yields these, until the system allows no more."""
    for tensor in memory.weights(pipe):
        if tensor.nbytes >= LOCKED_MIN_BYTES:
            data = tensor.detach()
            if error := memory.lock_pages(data):
                _log.warning("pages_not_locked", error=error)
                return
            yield data
