"""What a worker counts, in one place, for its metrics and its log."""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum

__all__ = ["Event", "Recorder"]


class Event(StrEnum):
    """Each counted by model."""

    PROMPT_HIT = "prompt_hit"  # a prompt's embeddings were at hand
    PROMPT_MISS = "prompt_miss"
    MODEL_LOADED = "model_loaded"
    MODEL_EVICTED = "model_evicted"  # to make room for another
    MODEL_FAILED = "model_failed"  # could not be loaded
    OOM_HALVED = "oom_halved"  # a pipeline call ran out of memory and was split
    BATCH_BISECTED = "batch_bisected"  # a batch raised and was split, to find the job at fault
    NAN_OUTPUT = "nan_output"  # a picture that is no numbers
    # Why a batch took no more jobs, as planner.StopReason says it.
    STOP_FULL = "stop_full"
    STOP_WINDOW = "stop_window"
    STOP_NO_MORE = "stop_no_more"
    STOP_ALONE = "stop_alone"


class Recorder:
    """Counters by event and model. The torch threads and the loop write it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Event, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, event: Event, model: str, count: int = 1) -> None:
        with self._lock:
            self._counts[event, model] += count

    def of(self, event: Event, model: str | None = None) -> int:
        """How often so far, for a model or for all."""
        return sum(n for (each, name), n in self.counts().items() if each == event and model in (None, name))

    def counts(self) -> dict[tuple[Event, str], int]:
        """Every counter, by event and model."""
        with self._lock:
            return dict(self._counts)
