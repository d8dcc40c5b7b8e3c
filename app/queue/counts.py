"""What the scripts are told of the metrics they count."""

from __future__ import annotations

from app.metrics import definitions
from app.metrics.definitions import Kind, Metric, Source

__all__ = ["lua_header"]


def lua_header() -> str:
    """The metrics counted in Redis as a Lua table by their Python name, put before each script."""
    counted = {
        name: metric
        for name, metric in vars(definitions).items()
        if isinstance(metric, Metric) and metric.source is Source.SERVICE and metric.kind is not Kind.GAUGE
    }
    entries = (
        f"{name} = {{ name = '{metric.name}', buckets = {{ {', '.join(map(str, metric.buckets))} }} }}"
        for name, metric in counted.items()
    )
    return f"local METRICS = {{ {', '.join(entries)} }}"
