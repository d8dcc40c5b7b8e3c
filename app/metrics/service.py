"""The service as a whole, as it stands in Redis: every API shows the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family

from app.jobs import JobStatus
from app.metrics import definitions as d
from app.metrics.families import Labels, of_counts, of_values

__all__ = ["PRIORITIES", "LastError", "QueueStats", "service_families"]

PRIORITIES = ("high", "normal", "low")

#: By the label values beside the model: shown with 0 before the first, which a rate would otherwise miss.
FROM_ZERO: Mapping[d.Metric, Sequence[Labels]] = {
    d.JOBS_ACCEPTED: [(each,) for each in PRIORITIES],
    d.JOBS_REFUSED: [("model",), ("all",), ("key",)],
    d.JOBS: [(each.value,) for each in JobStatus if each.terminal],
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
    """What Redis knows at a moment. Queues are by (model, priority); histograms as families.of_counts takes them."""

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
    measures: QueueStats, workers: Mapping[str, Sequence[str]], models: Sequence[str], queue_limit: int
) -> Iterator[Family]:
    """`workers` are those alive, each with its warm models. What the catalog has is shown from the start, with 0."""
    lanes: list[Labels] = [(model, priority) for model in models for priority in PRIORITIES]
    warm: dict[Labels, float] = {(model,): float(sum(model in held for held in workers.values())) for model in models}
    running: dict[Labels, float] = {(model,): measures.running.get(model, 0) for model in {*models, *measures.running}}
    values: dict[d.Metric, Mapping[Labels, float]] = {
        d.DEPTH: dict.fromkeys(lanes, 0.0) | dict(measures.waiting),
        d.OLDEST: dict.fromkeys(lanes, 0.0) | dict(measures.oldest_s),
        d.LIMIT: {(): queue_limit},
        d.RUNNING: running,
        d.WORKERS: {(): len(workers)},
        d.WARM: warm,
        d.DEAD_KEPT: {(): measures.dead},
        d.REDIS_MEMORY: {(): measures.redis_bytes},
        d.REDIS_MEMORY_MOST: {(): measures.redis_max_bytes},
        d.REDIS_MAY_EVICT: {(): float(measures.redis_may_evict)},
    }
    for metric in d.ALL:
        if metric in values:
            yield of_values(metric, values[metric])
        elif metric.source is d.Source.SERVICE and metric.kind is d.Kind.HISTOGRAM:
            yield of_counts(metric, measures.histograms.get(metric.name, {}))
        elif metric.source is d.Source.SERVICE:
            zeros: dict[Labels, float] = {(model, *rest): 0.0 for model in models for rest in FROM_ZERO.get(metric, ())}
            yield of_values(metric, zeros | dict(measures.counters.get(metric.name, {})))
