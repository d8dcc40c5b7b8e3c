"""What an API shows: its own answers, and the service as Redis knows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics import definitions as d
from app.metrics.families import Fixed, counter, histogram, of_values
from app.metrics.service import QueueStats, service_families

__all__ = ["Metrics"]


class Metrics:
    """One registry an app, so that several apps may live in a process."""

    def __init__(self, folders: Mapping[str, Path], queue_limit: int) -> None:
        """`folders` are those whose disks are shown, by name."""
        self._queue_limit = queue_limit
        self._registry = CollectorRegistry()
        self._answers = counter(d.HTTP, self._registry)
        self._times = histogram(d.HTTP_TIME, self._registry)
        self._warnings = counter(d.WARNINGS, self._registry)
        self._registry.register(_Disks(folders))
        ProcessCollector(registry=self._registry)

    def answered(self, route: str, method: str, status: int, duration_s: float) -> None:
        """`route` is a template, never a path as it was asked for."""
        self._answers.labels(route, method, str(status)).inc()
        self._times.labels(route).observe(duration_s)

    def warned(self, parameters: Iterable[str]) -> None:
        """Counts an accepted job's warnings. `parameters` are names of the API, none that a caller made up."""
        for parameter in parameters:
            self._warnings.labels(parameter).inc()

    def render(self, measures: QueueStats | None, workers: Mapping[str, Sequence[str]], models: Sequence[str]) -> bytes:
        """The Prometheus text format. Without `measures`, which is Redis away, nothing is said of the service rather
        than what was true once.
        """
        families = [of_values(d.REDIS_UP, {(): 0.0 if measures is None else 1.0})]
        if measures is not None:
            families += service_families(measures, workers, models, self._queue_limit)
        return generate_latest(self._registry) + generate_latest(Fixed(families))


class _Disks(Collector):
    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Family]:
        usages = {}
        for name, folder in self._folders.items():
            with suppress(FileNotFoundError):  # nothing was stored there yet
                usages[(name,)] = shutil.disk_usage(folder)
        yield of_values(d.DISK_FREE, {name: usage.free for name, usage in usages.items()})
        yield of_values(d.DISK_SIZE, {name: usage.total for name, usage in usages.items()})
