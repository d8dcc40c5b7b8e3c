"""Creates prometheus_client's objects from the declared metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from app.metrics.definitions import Kind, Metric

__all__ = ["Labels", "StaticCollector", "counter", "gauge", "histogram", "histogram_family", "value_family"]

Labels = tuple[str, ...]


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """Creates a counter of this process."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """Creates a gauge of this process."""
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """Creates a histogram of this process."""
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def value_family(metric: Metric, values: Mapping[Labels, float]) -> Family:
    """Creates a counter or gauge from values by label values, which were counted or read elsewhere."""
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def histogram_family(metric: Metric, counts: Mapping[Labels, Mapping[str, float]]) -> Family:
    """Creates a histogram from the count of each bucket alone, by the bucket's number from 1, and the `sum`."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    names = [*map(str, metric.buckets), "+Inf"]
    for labels, observed in sorted(counts.items()):
        cumulative = accumulate(observed.get(str(number), 0.0) for number in range(1, len(names) + 1))
        family.add_metric(labels, list(zip(names, cumulative, strict=True)), observed.get("sum", 0.0))
    return family


class StaticCollector(Collector):
    """Collects families that were read beforehand."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)
