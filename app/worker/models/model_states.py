"""The state of each of a worker's models: written by the engine and download threads, read by the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from app.logs import Log
from app.queue.registry import ModelState, Stage

__all__ = ["ModelStates"]

ANNOUNCE_S = 1.0  # between two calls of on_change over progress alone
LOG_S = 10.0  # between two log lines of progress
_log = Log("worker")


class ModelStates:
    """`on_change` is called in the thread that changed a state. A model without a state is cold."""

    def __init__(self) -> None:
        self.on_change: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._states: dict[str, ModelState] = {}
        self._announced_s: dict[str, float] = {}  # by model, when progress was last announced and logged
        self._logged_s: dict[str, float] = {}

    def snapshot(self) -> dict[str, ModelState]:
        with self._lock:
            return dict(self._states)

    def set(self, model: str, stage: Stage, error: str = "") -> None:
        state = ModelState(stage, error=error)
        with self._lock:
            if self._states.get(model) == state:
                return
            self._states[model] = state
        self._logged_s[model] = monotonic()
        self.on_change()

    def progress(self, model: str, stage: Stage, done_bytes: int, total_bytes: int) -> None:
        """Notes the progress of a stage. It may be called as often as the caller likes."""
        with self._lock:
            self._states[model] = ModelState(stage, done_bytes, total_bytes)
        now_s = monotonic()
        if now_s >= self._announced_s.get(model, 0.0) + ANNOUNCE_S:
            self._announced_s[model] = now_s
            self.on_change()
        if now_s >= self._logged_s.get(model, 0.0) + LOG_S:
            self._logged_s[model] = now_s
            percent = 100 * done_bytes / total_bytes if total_bytes else 0.0
            _log.info(
                f"model_{stage}", model=model, done_bytes=done_bytes, total_bytes=total_bytes, percent=round(percent, 1)
            )
