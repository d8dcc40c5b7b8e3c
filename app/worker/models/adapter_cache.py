"""The LoRAs that a worker has read, in main memory, and those on its device, each within a budget of bytes.

One that a job uses is held until the job ends. Of the others, the least recently used makes room. Files are read in
another thread while the engine denoises.
"""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from app.catalog import Model
from app.loading.adapters import Adapter, load_adapter
from app.loading.errors import public_reason
from app.logs import Log
from app.worker.engine.adapters import Loras
from app.worker.engine.shared_model import SharedModel
from app.worker.models.model_cache import Deferral
from app.worker.recorder import Event, Recorder

__all__ = ["AdapterCache", "LoraFiles", "LoraUnavailable"]

_log = Log("worker")
#: A model's id, and a LoRA's.
Key = tuple[str, str]


class LoraUnavailable(Exception):
    """A LoRA cannot be loaded. Clients may read the message; the log has the rest."""


class LoraFiles(Protocol):
    """Where registered LoRAs are."""

    def path(self, lora: str, model: Model, /) -> Path:
        """Returns the safetensors file, fetched if need be. Raises LoraError, whose message names the LoRA."""


@dataclass(frozen=True)
class _Resident:
    """A LoRA on the device, for as long as its model is loaded."""

    model: weakref.ref[SharedModel]
    bytes: int


class AdapterCache:
    """Used by the engine's thread.

    Args:
        device: of the models.
        read_bytes_max: of what was read, in main memory.
        resident_bytes_max: of what is on the device. On a CPU it is the same memory, and counts once there.
        files: of the LoRAs; without it, no request can use any.
        recorder: for what happens.
        on_read: called in another thread once a file was read, or could not be.

    """

    def __init__(
        self, device: torch.device, read_bytes_max: int, resident_bytes_max: int, files: LoraFiles | None,
        recorder: Recorder, on_read: Callable[[], object],
    ) -> None:  # fmt: skip
        self._device, self._files, self._recorder, self._on_read = device, files, recorder, on_read
        self._read_bytes_max, self._resident_bytes_max = read_bytes_max, resident_bytes_max
        self._read: OrderedDict[Key, Adapter] = OrderedDict()  # least recently used first, and
        self._residents: OrderedDict[Key, _Resident] = OrderedDict()  # likewise
        self._reading: dict[Key, Future[Adapter]] = {}
        self._holds: Counter[Key] = Counter()  # by jobs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loras")

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device."""
        return sum(resident.bytes for resident in self._residents.values())

    def acquire(self, model: SharedModel, loras: Loras) -> None:
        """Holds a job's LoRAs on the device until `release`.

        Raises:
            LoraUnavailable: a file cannot be had or used, or all together exceed the budget.
            Deferral: their files are yet to be read, or they fit only once other jobs have ended. Call it again later.

        """
        if not loras:
            return
        self._forget_closed_models(model)
        keys = list(dict.fromkeys((model.entry.id, use.id) for use in loras))
        missing = [key for key in keys if key not in self._residents]
        read = {key: self._adapter(model, key) for key in missing}
        adapters = {key: adapter for key, adapter in read.items() if adapter is not None}
        if len(adapters) < len(missing):
            raise Deferral(needs_room=False)
        self._make_room(keys, {key: adapter.nbytes for key, adapter in adapters.items()})
        for key, adapter in adapters.items():
            model.add_adapter(key[1], adapter.map(lambda factors: factors.to(self._device)))
            self._residents[key] = _Resident(weakref.ref(model), adapter.nbytes)
        for key in keys:
            self._residents.move_to_end(key)
        self._holds.update(keys)
        self._recorder.add(Event.LORA_LOADED, model.entry.id, len(missing))
        self._recorder.add(Event.LORA_HIT, model.entry.id, len(keys) - len(missing))
        self._record_bytes(model.entry.id)
        self._forget_read()

    def release(self, model: str, loras: Loras) -> None:
        """Ends what `acquire` began. What was held stays on the device until its room is needed."""
        self._holds.subtract({(model, use.id) for use in loras})
        self._holds += Counter()  # drops those that nobody holds

    def close(self) -> None:
        """Ends the thread after the file under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _adapter(self, model: SharedModel, key: Key) -> Adapter | None:
        """Returns a LoRA as read from its file; None while it is being read, which begins if need be. Raises
        LoraUnavailable.
        """
        if key in self._read:
            self._read.move_to_end(key)
            return self._read[key]
        if key not in self._reading:
            self._reading[key] = self._thread.submit(self._read_file, model.entry, model.pipe, key[1])
            self._reading[key].add_done_callback(lambda _: self._on_read())
        if not self._reading[key].done():
            return None
        future = self._reading.pop(key)
        error = future.exception()
        if error is not None:
            raise LoraUnavailable(str(error)) from error
        self._read[key] = future.result()
        return self._read[key]

    def _read_file(self, entry: Model, pipe: object, lora: str) -> Adapter:
        begun = perf_counter()
        if self._files is None:
            raise LoraUnavailable(f"loras: this worker has no {lora}")
        path = None
        try:
            path = self._files.path(lora, entry)
            adapter = load_adapter(entry, pipe, path)
        except Exception as error:  # whatever reading raises is this LoRA's fault alone
            _log.error("lora_failed", model=entry.id, lora=lora, error=type(error).__name__, message=error)
            reason = public_reason(error)
            raise LoraUnavailable(reason if path is None else f"loras: {lora}: {reason}") from error
        if self._device.type == "cuda":
            adapter = adapter.map(lambda factors: factors.pin_memory())
        seconds = perf_counter() - begun
        self._recorder.lora_read(entry.id, seconds)
        _log.info("lora_read", model=entry.id, lora=lora, bytes=adapter.nbytes, read_ms=seconds * 1000)
        return adapter

    def _make_room(self, keys: Collection[Key], new: dict[Key, int]) -> None:
        """Evicts LoRAs that nobody holds until the new ones fit too. Raises LoraUnavailable or Deferral."""
        needed = sum(new.values()) + sum(self._residents[key].bytes for key in keys if key in self._residents)
        if needed > self._resident_bytes_max:
            limit = self._resident_bytes_max
            raise LoraUnavailable(
                f"loras: those of the request take {needed} bytes, and NAG_LORA_MEMORY_BYTES is {limit}"
            )
        idle = [key for key in self._residents if key not in keys and not self._holds[key]]
        excess = self.resident_bytes + sum(new.values()) - self._resident_bytes_max
        if excess > sum(self._residents[key].bytes for key in idle):
            raise Deferral(needs_room=True)
        for key in idle:
            if excess <= 0:
                break
            excess -= self._residents[key].bytes
            self._evict(key)

    def _evict(self, key: Key) -> None:
        resident = self._residents.pop(key)
        if (model := resident.model()) is not None:
            model.remove_adapter(key[1])
        self._recorder.add(Event.LORA_EVICTED, key[0])
        self._record_bytes(key[0])

    def _forget_closed_models(self, model: SharedModel) -> None:
        """Their LoRAs went with them; `model` may have been loaded again since."""
        closed = [
            key
            for key, resident in self._residents.items()
            if resident.model() is None or (key[0] == model.entry.id and resident.model() is not model)
        ]
        for key in closed:
            del self._residents[key]
            self._record_bytes(key[0])

    def _forget_read(self) -> None:
        read_bytes = sum(adapter.nbytes for adapter in self._read.values())
        while read_bytes > self._read_bytes_max:
            read_bytes -= self._read.popitem(last=False)[1].nbytes

    def _record_bytes(self, model: str) -> None:
        of_model = (resident.bytes for key, resident in self._residents.items() if key[0] == model)
        self._recorder.lora_bytes(model, sum(of_model))
