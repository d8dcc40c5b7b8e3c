"""Reads the files of cold models into main memory in a second thread, while the engine serves others.

The engine's thread then builds the model between two calls, which takes as long as copying. The second thread does not
build it: diffusers and transformers change torch's default dtype, which is the process's, while they build a model, and
others would compute in another precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic

from app.catalog import Model
from app.loading.errors import LoadError
from app.loading.hub import files_of
from app.worker.models.model_states import ModelStates

__all__ = ["FileReader"]

CHUNK_BYTES = 16 * 2**20
PROGRESS_S = 1.0  # between two reports


class FileReader:
    """Reads one model at a time. `on_end(model)` is called afterwards, in its thread.

    limit_bytes: of a model, since what the operating system cannot keep need not be read.

    Attributes:
        busy_since: of time.monotonic, when the read under way began; 0 between two of them.

    """

    def __init__(
        self, models: Mapping[str, Model], states: ModelStates, limit_bytes: int, on_end: Callable[[str], object]
    ) -> None:
        self.busy_since = 0.0
        self._models = models
        self._states = states
        self._limit_bytes = limit_bytes
        self._on_end = on_end
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="file-reader")
        self._reads: dict[str, Future[None]] = {}

    def has_read(self, model: str) -> bool:
        """Whether the files of a model are read; begins to read them if nobody has."""
        if model not in self._reads:
            self._states.set(model, "loading")
            self._reads[model] = read = self._thread.submit(self._read, model)
            read.add_done_callback(lambda _: self._on_end(model))
        return self._reads[model].done()

    def forget(self, model: str) -> None:
        """Reads the files again the next time."""
        self._reads.pop(model, None)

    def close(self) -> None:
        """Ends the thread."""
        self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, model: str) -> None:
        try:
            with suppress(OSError, LoadError):  # building the model reports what is wrong with them
                self._read_files(model)
        finally:
            self.busy_since = 0.0

    def _read_files(self, model: str) -> None:
        files = [(file.path, file.size_bytes) for file in files_of(self._models[model])]
        total, done, reported_s = sum(size for _, size in files), 0, monotonic()
        for path, size in files:
            if path is None or done + size > self._limit_bytes:
                break
            self._read_file(path)
            done += size
            if monotonic() >= reported_s + PROGRESS_S:
                reported_s = monotonic()
                self._states.progress(model, "loading", done, total)

    def _read_file(self, path: Path) -> None:
        buffer = bytearray(CHUNK_BYTES)
        with path.open("rb", buffering=0) as file:
            self.busy_since = monotonic()
            while not self._is_closed and file.readinto(buffer):
                self.busy_since = monotonic()
