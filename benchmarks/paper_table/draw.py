"""Draws what the album lacks, through the loading and the denoising of the service's worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from app.worker.batching import Row
from app.worker.denoise import denoise
from tqdm import tqdm

from app.jobs import Job
from app.worker.loading import load
from benchmarks.paper_table.album import Album
from benchmarks.paper_table.plan import Batch, Plan

__all__ = ["Limits", "draw", "missing"]


@dataclass(frozen=True)
class Limits:
    """What of the plan one process draws. Of `shards` processes, number `shard` takes every shards-th batch.

    end_s: on perf_counter's clock; no batch is begun that, as slow as the slowest so far, would end later.
    """

    shard: int = 0
    shards: int = 1
    end_s: float | None = None


def missing(plan: Plan, album: Album) -> list[Batch]:
    """The batches of which any picture is missing. Raises DrawnOtherwise.

    They are drawn anew whole: how rows share a call shows in a picture's last digits.
    """
    return [
        batch
        for batch in plan.batches()
        if not all(album.holds(batch.method, place, plan.generation(batch.method, place)) for place in batch.places)
    ]


def draw(plan: Plan, album: Album, device: torch.device, limits: Limits) -> None:
    """Raises RuntimeError for a picture that is none, and where NAG was asked for and not applied."""
    mine = [batch for batch in missing(plan, album) if batch.number % limits.shards == limits.shard]
    if not mine:
        return
    pipe = load(plan.entry, device)
    slowest_s = 0.0
    with tqdm(total=sum(len(batch.places) for batch in mine), unit="picture", desc=plan.entry.id) as bar:
        for batch in mine:
            begun_s = perf_counter()
            if limits.end_s is not None and begun_s + slowest_s > limits.end_s:
                return
            bar.set_postfix_str(batch.method)
            generations = [plan.generation(batch.method, place) for place in batch.places]
            rows = [Row(Job(str(place), each), 0) for place, each in zip(batch.places, generations, strict=True)]
            done = denoise(pipe, plan.entry, rows, device)
            _check(batch, done.pixels, [each.applied for each in done.applied])
            for place, generation, pixels in zip(batch.places, generations, done.pixels, strict=True):
                album.keep(batch.method, place, generation, (pixels * 255).round().astype(np.uint8))
            bar.update(len(rows))
            slowest_s = max(slowest_s, perf_counter() - begun_s)


def _check(batch: Batch, pixels: np.ndarray, applied: Sequence[bool]) -> None:
    for place, picture, guided in zip(batch.places, pixels, applied, strict=True):
        if not np.isfinite(picture).all():
            raise RuntimeError(f"{batch.method}: the picture of prompt {place} holds pixels that are not numbers")
        if guided != (batch.method == "NAG"):
            raise RuntimeError(f"{batch.method}: prompt {place} was drawn with{'' if guided else 'out'} NAG")
