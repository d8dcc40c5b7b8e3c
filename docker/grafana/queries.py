"""The few shapes a query has. What the service counts is the same at each API; what a process counts is its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.metrics import definitions as d

__all__ = ["MODEL", "WINDOW", "Query", "mean", "now", "quantiles", "raw", "total"]

MODEL = 'model=~"$model"'
WINDOW = "[$__rate_interval]"


class Query(NamedTuple):
    """PromQL, and how its series are named."""

    expr: str
    legend: str


def raw(expr: str, by: str = "", prefix: str = "") -> Query:
    """`by` are the labels that tell the series apart."""
    labels = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",") if label)
    return Query(expr, " ".join(filter(None, [prefix, labels])))


def total(metric: d.Metric, by: str, prefix: str = "", more: str = "") -> Query:
    """Returns the rate per second of all instances; of a histogram, that of its observations."""
    name = metric.name + ("_count" if metric.kind is d.Kind.HISTOGRAM else "")
    selector = ", ".join(filter(None, [MODEL if "model" in metric.labels else "", more]))
    within = f"rate({name}{{{selector}}}{WINDOW})"
    if metric.source is d.Source.SERVICE:
        within = f"max by ({', '.join(metric.labels)}) ({within})"
    return raw(f"sum by ({by}) ({within})", by, prefix)


def mean(metric: d.Metric, by: str, prefix: str = "") -> Query:
    """Returns the mean of a worker's observations."""
    sums, counts = (f"sum by ({by}) (rate({metric.name}_{part}{{{MODEL}}}{WINDOW}))" for part in ("sum", "count"))
    return raw(f"{sums} / ({counts} > 0)", by, prefix)


def quantiles(metric: d.Metric, by: str, of: Sequence[float] = (0.5, 0.95, 0.99), prefix: str = "") -> Sequence[Query]:
    """Returns quantiles of a histogram by the labels of `by`."""
    together = "max" if metric.source is d.Source.SERVICE else "sum"
    selector = MODEL if "model" in metric.labels else ""
    within = f"{together} by ({by}, le) (rate({metric.name}_bucket{{{selector}}}{WINDOW}))"
    return [raw(f"histogram_quantile({q:g}, {within})", by, f"{prefix} p{q * 100:g}".strip()) for q in of]


def now(metric: d.Metric, by: str = "", prefix: str = "") -> Query:
    """Returns the present value of a gauge that every API exports alike."""
    return raw(f"max by ({by}) ({metric.name}{{{MODEL}}})" if by else f"max({metric.name})", by, prefix)
