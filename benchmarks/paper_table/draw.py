"""Draws what the cache lacks, through the loading and the pipeline calls of the service's worker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from app.jobs import Job
from app.loading.pipeline import load
from app.worker.engine.pipeline_call import CallResult, PipelineCall, run_calls
from app.worker.engine.shared_model import SharedModel
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.protocol import JobControl
from app.worker.recorder import Recorder
from benchmarks.paper_table.image_cache import ImageCache
from benchmarks.paper_table.plan import Batch, Plan

__all__ = ["Limits", "draw", "missing"]

#: For encoded prompts, of which the negative ones repeat.
MEMO_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Limits:
    """What of the plan one process draws. Of `shards` processes, number `shard` takes every shards-th batch.

    end_s: on perf_counter's clock; no batch is begun that, as slow as the slowest so far, would end later.
    """

    shard: int = 0
    shards: int = 1
    end_s: float | None = None


def missing(plan: Plan, cache: ImageCache) -> list[Batch]:
    """Returns the batches of which any image is missing. Raises StaleImageError.

    They are drawn anew whole: how rows share a call shows in an image's last digits.
    """
    return [
        batch
        for batch in plan.batches()
        if not all(cache.holds(batch.method, place, plan.generation(batch.method, place)) for place in batch.places)
    ]


def draw(plan: Plan, cache: ImageCache, device: torch.device, limits: Limits) -> None:
    """Raises RuntimeError for an image that is none, and where NAG was asked for and not applied."""
    mine = [batch for batch in missing(plan, cache) if batch.number % limits.shards == limits.shard]
    if not mine:
        return
    memo, recorder = EncoderMemo(MEMO_BYTES), Recorder()
    slowest_s = 0.0
    with (
        closing(SharedModel(plan.entry, load(plan.entry, device))) as model,
        tqdm(total=sum(len(batch.places) for batch in mine), unit="image", desc=plan.entry.id) as bar,
    ):
        for batch in mine:
            begun_s = perf_counter()
            if limits.end_s is not None and begun_s + slowest_s > limits.end_s:
                return
            bar.set_postfix_str(batch.method)
            generations = [plan.generation(batch.method, place) for place in batch.places]
            calls = [
                PipelineCall(
                    place, model, Job(str(place), generation), 0, {}, JobControl(), device, memo, None, recorder
                )
                for place, generation in zip(batch.places, generations, strict=True)
            ]
            run_calls(calls)
            made = [call.made for call in calls]
            _check(batch, made)
            for place, generation, image in zip(batch.places, generations, made, strict=True):
                cache.keep(batch.method, place, generation, (image.pixels * 255).round().astype(np.uint8))
            bar.update(len(calls))
            slowest_s = max(slowest_s, perf_counter() - begun_s)


def _check(batch: Batch, images: Sequence[CallResult]) -> None:
    for place, image in zip(batch.places, images, strict=True):
        if not np.isfinite(image.pixels).all():
            raise RuntimeError(f"{batch.method}: the image of prompt {place} holds pixels that are not numbers")
        if image.applied.applied != (batch.method == "NAG"):
            without = "" if image.applied.applied else "out"
            raise RuntimeError(f"{batch.method}: prompt {place} was drawn with{without} NAG")
