"""The loaded models of a worker under one memory budget; the least recently used of the idle ones makes room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

import torch

from app.catalog import Model
from app.loading.errors import public_reason
from app.loading.size import model_size
from app.logs import Log
from app.worker.devices import memory
from app.worker.devices.device_group import DeviceGroup
from app.worker.engine.shared_model import SharedModel
from app.worker.models.host_memory import HostMemory, HostPipeline
from app.worker.models.model_states import ModelStates
from app.worker.recorder import Event, Recorder

__all__ = ["Deferral", "ModelCache", "ModelUnavailable", "is_movable"]

PROGRESS_S = 1.0  # between two looks at how far a model is loaded
RETRY_S = 60.0  # a model that could not be loaded is not tried again before
_log = Log("worker")


def is_movable(entry: Model) -> bool:
    """Whether a loaded model's weights can be moved between a GPU and main memory as they are."""
    return (
        entry.offload == "none"
        and entry.parallel is None
        and (entry.quantization is None or entry.quantization.is_cast)
    )


class ModelUnavailable(Exception):
    """The model cannot be loaded. Clients may read the message; the log has the rest."""


class Deferral(Exception):
    """A job cannot begin yet.

    Attributes:
        needs_room: whether it waits for other jobs to end; otherwise it waits for another thread to read files.

    """

    def __init__(self, *, needs_room: bool) -> None:
        super().__init__()
        self.needs_room = needs_room


@dataclass(frozen=True)
class _CacheEntry:
    model: SharedModel
    bytes: int


class ModelCache:
    """Used by one thread. `load` makes a pipeline of an entry; `in_use()` says which models have calls in flight;
    `group` has the other ranks of a worker over several devices.

    Evicted models whose weights can be moved stay in main memory, up to `host_bytes` (HostMemory).
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        device: torch.device,
        budget_bytes: int,
        load: Callable[[Model, torch.device], Any],
        recorder: Recorder,
        in_use: Callable[[], Collection[str]],
        states: ModelStates,
        host_bytes: int = 0,
        group: DeviceGroup | None = None,
    ) -> None:
        self._models = models
        self._device = device
        self._budget_bytes = budget_bytes
        self._load = load
        self._recorder = recorder
        self._in_use = in_use
        self._states = states
        self._group = group
        self.warm: tuple[str, ...] = ()  # whole at any time, for other threads to read
        self._held: OrderedDict[str, _CacheEntry] = OrderedDict()  # least recently used first
        self._failed: dict[str, tuple[float, str]] = {}  # until when, and why
        self._sizes: dict[str, int] = {}
        self._host = HostMemory(host_bytes, device)

    @property
    def held_bytes(self) -> int:
        return sum(held.bytes for held in self._held.values())

    def fits(self, model: str) -> bool:
        """Whether the model fits in addition to those held. False if its files are not on this machine."""
        size = self._size(model)
        return size is not None and self.held_bytes + size <= self._budget_bytes

    def has_room(self, model: str) -> bool:
        """Whether the model fits once every idle one has made room."""
        in_use = self._in_use()
        kept = [held.bytes for name, held in self._held.items() if name in in_use]
        return not kept or sum(kept) + (self._size(model) or 0) <= self._budget_bytes

    def needs_files(self, model: str) -> bool:
        """Whether `get` would load the model from its files."""
        return model not in self._held and model not in self._host and self.failure(model) is None

    def fail(self, model: str, reason: str) -> None:
        """Do not try the model again before RETRY_S have passed. From any thread."""
        self._failed[model] = monotonic() + RETRY_S, reason
        self._recorder.add(Event.MODEL_FAILED, model)
        self._states.set(model, "failed", reason)

    def failure(self, model: str) -> str | None:
        """Why the model is not tried now; None if it may be."""
        until_s, reason = self._failed.get(model, (0.0, ""))
        return reason if monotonic() < until_s else None

    def get(self, model: str) -> SharedModel:
        """Returns the model, loaded if need be. Raises ModelUnavailable, or Deferral if it fits only later."""
        if model in self._held:
            self._held.move_to_end(model)
            return self._held[model].model
        if (reason := self.failure(model)) is not None:
            raise ModelUnavailable(reason)
        size = self._size(model)
        waiting = self._host.pop(model)  # what makes room for it must not take its place in main memory
        if not self._make_room(size or 0):
            self._host.put_back(model, waiting)
            raise Deferral(needs_room=True)
        reason = None
        try:
            pipe = self._loaded(model, waiting)
            shared = SharedModel(self._models[model], pipe, self._group)
        except Exception as error:  # whatever loading raises is this model's fault alone
            reason = f"the model could not be loaded ({public_reason(error)})"
            _log.error("model_failed", model=model, error=type(error).__name__, message=error)
        if reason is not None:
            self.fail(model, reason)
            memory.free(self._device)
            raise ModelUnavailable(reason)
        self._failed.pop(model, None)
        held_bytes = memory.held_bytes(pipe)
        if size is not None and self._models[model].offload != "none":  # most of what it holds is not on the device
            held_bytes = min(size, held_bytes)
        self._held[model] = _CacheEntry(shared, held_bytes)
        self.warm = tuple(self._held)
        self._make_room(0)
        return shared

    def drop(self, model: str) -> None:
        """Let a model go, and its memory with it."""
        held = self._held.pop(model)
        held.model.close()
        size = held.bytes
        if is_movable(self._models[model]):
            self._host.put(model, held.model.pipe)
        del held
        self.warm = tuple(self._held)
        memory.free(self._device)
        self._recorder.add(Event.MODEL_EVICTED, model)
        _log.info("model_evicted", model=model, bytes=size, held_bytes=self.held_bytes)
        self._states.set(model, "cold")

    def _loaded(self, model: str, waiting: HostPipeline | None) -> Any:
        """Returns the pipeline on the device: the evicted one from main memory, or else from its files."""
        begun = perf_counter()
        with self._watched(model):
            try:
                if waiting is not None:
                    pipe = waiting.move_to(self._device)
                else:
                    pipe = self._load(self._models[model], self._device)
            except Exception as error:
                if not memory.is_out_of_memory(error) or not self._held:
                    raise
                pipe = None
            if pipe is None:  # here, where the exception no longer holds what was loaded
                self.drop_idle()
                pipe = self._load(self._models[model], self._device)
        load_ms = (perf_counter() - begun) * 1000
        self._recorder.loaded(model, load_ms / 1000)
        _log.info("model_loaded", model=model, device=self._device, bytes=memory.held_bytes(pipe), load_ms=load_ms)
        return pipe

    @contextmanager
    def _watched(self, model: str) -> Iterator[None]:
        """Tells how far the model is loaded, by the device's memory, until the block ends."""
        self._states.set(model, "loading")
        total_bytes, before_bytes = self._size(model) or 0, memory.used_bytes(self._device)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(PROGRESS_S):
                done_bytes = min(max(memory.used_bytes(self._device) - before_bytes, 0), total_bytes)
                self._states.progress(model, "loading", done_bytes, total_bytes)

        thread = threading.Thread(target=watch, name="loading", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _size(self, model: str) -> int | None:
        """Returns the bytes of the device's memory that the model takes; None if its files are not on this machine."""
        if model not in self._sizes and (size := model_size(self._models[model])) is not None:
            self._sizes[model] = size.of_device(self._device.type)
        return self._sizes.get(model)

    def drop_idle(self) -> bool:
        """Lets every model without calls in flight go. Returns whether there was one."""
        idle = self._idle()
        for model in idle:
            self.drop(model)
        return bool(idle)

    def _idle(self) -> list[str]:
        in_use = self._in_use()
        return [model for model in self._held if model not in in_use]

    def _make_room(self, size: int) -> bool:
        """Evicts idle models until `size` bytes fit; the newest is kept when nothing is to come. False if models that
        are in use take the room.
        """
        newest = None if size else next(reversed(self._held), None)
        evictable = [model for model in self._idle() if model != newest]
        while evictable and self.held_bytes + size > self._budget_bytes:
            self.drop(evictable.pop(0))
        return self.held_bytes + size <= self._budget_bytes or not self._held
