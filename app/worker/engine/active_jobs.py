"""The jobs in flight: their pipeline calls, and how much room they leave."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import time

from app.catalog import Model
from app.jobs import InputFiles, Job, JobError
from app.worker.engine.pipeline_call import PipelineCall
from app.worker.protocol import JobControl, JobOutput, Room

__all__ = ["ActiveJob", "RoomCounter"]

#: Images in flight beyond those of one denoiser call, at most as many as these: some are encoded or decoded meanwhile.
AHEAD_MAX = 8


@dataclass(eq=False)
class ActiveJob:
    """A job in flight."""

    job: Job
    files: InputFiles
    control: JobControl
    future: Future[JobOutput | JobError]
    holds_loras: bool = False
    calls: list[PipelineCall] = field(default_factory=list)
    submitted_at: float = field(default_factory=time)  # Unix seconds


class RoomCounter:
    """Counts the jobs in flight and what they cost. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs = 0
        self._cost: Counter[str] = Counter()  # by model
        self._has_lost_job = False  # one in flight was lost by another worker before

    def add(self, job: Job) -> None:
        """Counts a job that was submitted."""
        with self._lock:
            self._jobs += 1
            self._cost[job.request.model] += job.request.cost
            self._has_lost_job = self._has_lost_job or job.attempts > 1

    def remove(self, job: Job) -> None:
        """Counts a job that has ended."""
        with self._lock:
            self._jobs -= 1
            self._cost[job.request.model] -= job.request.cost
            self._has_lost_job = self._has_lost_job and self._jobs > 0

    def room(self, entry: Model, limit: int, *, is_full: bool) -> Room:
        """Returns what may be claimed of a model whose denoiser calls take `limit`; `is_full`: nothing for now."""
        whole = limit + min(limit, AHEAD_MAX * entry.default_cost)
        with self._lock:
            free = 0 if is_full or self._has_lost_job else whole - self._cost[entry.id]
            return Room(free, whole, self._jobs)
