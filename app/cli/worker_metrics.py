"""What workers show of their denoiser calls, read from each worker's own metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import definitions as d

__all__ = ["WorkerMetrics", "read_workers"]

ANSWER_S = 1.0  # a worker that takes longer is left out of this look


@dataclass(frozen=True)
class WorkerMetrics:
    """One worker's samples, by name and model."""

    samples: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The models that it has had images of."""
        return sorted({model for name, model in self.samples if name == d.IN_FLIGHT.name})

    def value(self, name: str, model: str) -> float:
        """Returns a sample's value; 0 if there is none yet."""
        return self.samples.get((name, model), 0.0)

    def mean_since(self, before: WorkerMetrics, metric: d.Metric, model: str) -> float | None:
        """Returns the mean of what a histogram has observed since then; None if that is nothing."""
        total, count = (
            self.value(f"{metric.name}_{part}", model) - before.value(f"{metric.name}_{part}", model)
            for part in ("sum", "count")
        )
        return total / count if count > 0 else None


async def read_workers(addresses: Mapping[str, str]) -> dict[str, WorkerMetrics]:
    """Reads the metrics of workers by name, from their host:port; those that cannot be reached are left out."""
    async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as http:
        workers = await asyncio.gather(*(_read(http, address) for address in addresses.values()))
    return {name: worker for name, worker in zip(addresses, workers, strict=True) if worker is not None}


async def _read(http: httpx.AsyncClient, address: str) -> WorkerMetrics | None:
    try:
        answer = (await http.get(f"http://{address}/metrics")).raise_for_status()
    except httpx.HTTPError:
        return None
    return WorkerMetrics(
        {
            (sample.name, sample.labels["model"]): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.labels.keys() == {"model"}
        }
    )
