"""The metrics of an API process: its own responses, and the state of the service in Redis."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics import definitions as d
from app.metrics.prometheus_metrics import StaticCollector, counter, histogram, value_family
from app.metrics.service import QueueStats, service_families

__all__ = ["Metrics"]


class Metrics:
    """One registry per app, so that a process may have several apps."""

    def __init__(self, folders: Mapping[str, Path], queue_limit: int) -> None:
        """folders: those whose disk usage is shown, by name."""
        self._queue_limit = queue_limit
        self._registry = CollectorRegistry()
        self._responses = counter(d.HTTP, self._registry)
        self._times = histogram(d.HTTP_TIME, self._registry)
        self._warnings = counter(d.WARNINGS, self._registry)
        self._registry.register(_DiskCollector(folders))
        ProcessCollector(registry=self._registry)

    def record_response(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Counts a response. `route` is a template, never the path of a request."""
        self._responses.labels(route, method, str(status)).inc()
        self._times.labels(route).observe(duration_s)

    def record_warnings(self, parameters: Iterable[str]) -> None:
        """Counts the warnings of an accepted job. `parameters` are names of the API, never a caller's own."""
        for parameter in parameters:
            self._warnings.labels(parameter).inc()

    def render(self, stats: QueueStats | None, workers: Mapping[str, Sequence[str]], models: Sequence[str]) -> bytes:
        """Returns the metrics in the Prometheus text format.

        If `stats` is None, since Redis cannot be reached, the metrics of the service are left out.
        """
        families = [value_family(d.REDIS_UP, {(): 0.0 if stats is None else 1.0})]
        if stats is not None:
            families += service_families(stats, workers, models, self._queue_limit)
        return generate_latest(self._registry) + generate_latest(StaticCollector(families))


class _DiskCollector(Collector):
    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Family]:
        usages = {}
        for name, folder in self._folders.items():
            with suppress(FileNotFoundError):  # nothing was stored there yet
                usages[(name,)] = shutil.disk_usage(folder)
        yield value_family(d.DISK_FREE, {name: usage.free for name, usage in usages.items()})
        yield value_family(d.DISK_SIZE, {name: usage.total for name, usage in usages.items()})
