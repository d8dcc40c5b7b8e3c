"""The metrics of the whole service, read from Redis: every API process shows the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family

from app.jobs import JobStatus
from app.metrics import definitions as d
from app.metrics.prometheus_metrics import Labels, histogram_family, value_family

__all__ = ["PRIORITIES", "LastError", "QueueStats", "service_families"]

PRIORITIES = ("high", "normal", "low")

#: Label values, after the model, that are shown as 0 before the first event, so that a rate includes that event.
FROM_ZERO: Mapping[d.Metric, Sequence[Labels]] = {
    d.JOBS_ACCEPTED: [(priority,) for priority in PRIORITIES],
    d.JOBS_REFUSED: [("model",), ("all",), ("key",)],
    d.JOBS: [(status.value,) for status in JobStatus if status.is_terminal],
    d.RETRIES: [()],
    d.LEASES_LOST: [()],
    d.DEAD_LETTERS: [()],
}


class LastError(NamedTuple):
    at: float  # Unix seconds
    job: str
    model: str
    code: str


@dataclass(frozen=True)
class QueueStats:
    """A reading of Redis. Queues are by (model, priority); histograms are as `histogram_family` takes them."""

    counters: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[Labels, Mapping[str, float]]] = field(default_factory=dict)
    waiting: Mapping[Labels, int] = field(default_factory=dict)
    oldest_s: Mapping[Labels, float] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)  # jobs by worker
    last_errors: Sequence[LastError] = ()  # newest first
    dead: int = 0
    redis_bytes: int = 0
    redis_max_bytes: int = 0
    redis_may_evict: bool = False


def service_families(
    stats: QueueStats, workers: Mapping[str, Sequence[str]], models: Sequence[str], queue_limit: int
) -> Iterator[Family]:
    """Yields the metrics. `workers` are the live ones with their warm models. Models of the catalog begin with 0."""
    lanes: list[Labels] = [(model, priority) for model in models for priority in PRIORITIES]
    warm: dict[Labels, float] = {
        (model,): float(sum(model in warm_models for warm_models in workers.values())) for model in models
    }
    running: dict[Labels, float] = {(model,): stats.running.get(model, 0) for model in {*models, *stats.running}}
    values: dict[d.Metric, Mapping[Labels, float]] = {
        d.DEPTH: dict.fromkeys(lanes, 0.0) | dict(stats.waiting),
        d.OLDEST: dict.fromkeys(lanes, 0.0) | dict(stats.oldest_s),
        d.LIMIT: {(): queue_limit},
        d.RUNNING: running,
        d.WORKERS: {(): len(workers)},
        d.WARM: warm,
        d.DEAD_KEPT: {(): stats.dead},
        d.REDIS_MEMORY: {(): stats.redis_bytes},
        d.REDIS_MEMORY_MOST: {(): stats.redis_max_bytes},
        d.REDIS_MAY_EVICT: {(): float(stats.redis_may_evict)},
    }
    for metric in d.ALL:
        if metric in values:
            yield value_family(metric, values[metric])
        elif metric.source is d.Source.SERVICE and metric.kind is d.Kind.HISTOGRAM:
            yield histogram_family(metric, stats.histograms.get(metric.name, {}))
        elif metric.source is d.Source.SERVICE:
            zeros: dict[Labels, float] = {(model, *rest): 0.0 for model in models for rest in FROM_ZERO.get(metric, ())}
            yield value_family(metric, zeros | dict(stats.counters.get(metric.name, {})))
