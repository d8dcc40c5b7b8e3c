"""What a `/metrics` answer says."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["of_text", "read", "series"]


def of_text(text: str) -> dict[tuple[str, ...], float]:
    """By the sample's name and its label values, in the order of the labels' names."""
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


async def read(api: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    return of_text((await api.get("/metrics")).raise_for_status().text)


def series(samples: dict[tuple[str, ...], float]) -> set[tuple[str, ...]]:
    """Of our metrics, each name with its labels."""
    return {name for name in samples if name[0].startswith("nag_")}
