"""Our declarations as prometheus_client's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics.definitions import Kind, Metric

__all__ = ["Fixed", "Labels", "counter", "gauge", "histogram", "of_counts", "of_values"]

Labels = tuple[str, ...]


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """Counted in this process."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """Kept in this process."""
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def of_values(metric: Metric, values: Mapping[Labels, float]) -> Family:
    """A counter or gauge as it was counted or read elsewhere, by label values."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def of_counts(metric: Metric, counts: Mapping[Labels, Mapping[str, float]]) -> Family:
    """A histogram from how often each bucket alone was met, by the bucket's number from 1, and the `sum`."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    names = [*map(str, metric.buckets), "+Inf"]
    for labels, met in sorted(counts.items()):
        cumulative = accumulate(met.get(str(number), 0.0) for number in range(1, len(names) + 1))
        family.add_metric(labels, list(zip(names, cumulative, strict=True)), met.get("sum", 0.0))
    return family


class Fixed(Collector):
    """Families that were read beforehand."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)
