"""The warm pipelines of a worker: several models under one memory budget, the least recently used makes room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

import torch

from app.catalog import Model
from app.logs import Log
from app.worker import memory
from app.worker.recorder import Event, Recorder

__all__ = ["ModelUnavailable", "Pool"]

RETRY_S = 60.0  # a model that could not be loaded is not tried again before
_log = Log("worker")


class ModelUnavailable(Exception):
    """The model cannot be loaded; the message names the kind of error alone, for the log has told the rest."""


@dataclass(frozen=True)
class _Held:
    pipe: Any
    bytes: int


class Pool:
    """Used by one thread at a time. `load` makes a pipeline of an entry; models are let go within `quiet`."""

    def __init__(
        self,
        models: Mapping[str, Model],
        device: torch.device,
        budget_bytes: int,
        load: Callable[[Model, torch.device], Any],
        recorder: Recorder,
        quiet: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._models = models
        self._device = device
        self._budget_bytes = budget_bytes
        self._load = load
        self._recorder = recorder
        self._quiet = quiet
        self.warm: tuple[str, ...] = ()  # whole at any time, for other threads to read
        self._held: OrderedDict[str, _Held] = OrderedDict()  # least recently used first
        self._failed: dict[str, tuple[float, str]] = {}  # until when, and the kind of error

    @property
    def held_bytes(self) -> int:
        return sum(each.bytes for each in self._held.values())

    def fits(self, model: str) -> bool:
        """Whether the model, as large as its files, fits beside those held. False where they are not on this disk."""
        size = memory.on_disk_bytes(self._models[model])
        return size is not None and self.held_bytes + size <= self._budget_bytes

    def get(self, model: str) -> Any:
        """The model's pipeline, loaded if need be. Raises ModelUnavailable."""
        if model in self._held:
            self._held.move_to_end(model)
            return self._held[model].pipe
        until_s, kind = self._failed.get(model, (0.0, ""))
        if monotonic() < until_s:
            raise ModelUnavailable(f"the model could not be loaded ({kind})")
        self._make_room(memory.on_disk_bytes(self._models[model]) or 0)
        failure = ""
        try:
            pipe = self._loaded(model)
        except Exception as error:  # whatever loading raises is this model's fault alone
            failure = type(error).__name__
            _log.error("model_failed", model=model, error=failure, message=error)
        if failure:
            self._failed[model] = monotonic() + RETRY_S, failure
            self._recorder.add(Event.MODEL_FAILED, model)
            memory.free(self._device)
            raise ModelUnavailable(f"the model could not be loaded ({failure})")
        self._failed.pop(model, None)
        self._held[model] = _Held(pipe, memory.held_bytes(pipe))
        self.warm = tuple(self._held)
        self._make_room(0)
        return pipe

    def drop(self, model: str) -> None:
        """Let a model go, and its memory with it."""
        size = self._held.pop(model).bytes
        self.warm = tuple(self._held)
        memory.free(self._device)
        self._recorder.add(Event.MODEL_EVICTED, model)
        _log.info("model_evicted", model=model, bytes=size, held_bytes=self.held_bytes)

    def _loaded(self, model: str) -> Any:
        begun = perf_counter()
        try:
            pipe = self._load(self._models[model], self._device)
        except Exception as error:
            if not memory.is_out_of_memory(error) or not self._held:
                raise
            pipe = None
        if pipe is None:  # here, where the exception no longer holds what was loaded
            self._make_room(self._budget_bytes)
            pipe = self._load(self._models[model], self._device)
        load_ms = (perf_counter() - begun) * 1000
        self._recorder.loaded(model, load_ms / 1000)
        _log.info("model_loaded", model=model, device=self._device, bytes=memory.held_bytes(pipe), load_ms=load_ms)
        return pipe

    def _make_room(self, size: int) -> None:
        """Evict until `size` bytes fit; the newest is kept when nothing is to come."""
        keep = 0 if size else 1
        while len(self._held) > keep and self.held_bytes + size > self._budget_bytes:
            with self._quiet():  # what is being decoded is done by then
                self.drop(next(iter(self._held)))
