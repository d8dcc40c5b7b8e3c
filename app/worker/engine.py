"""The warm pipelines, and jobs through them. Lives in the torch thread; the only importer of torch's side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.catalog import Catalog
from app.formats import MEDIA_TYPES
from app.jobs import Generation, Job, JobError
from app.logs import Log
from app.worker import pipelines
from app.worker.batching import Row, calls, overall_step
from app.worker.denoise import Denoised, denoise
from app.worker.encode import encode
from app.worker.video import encode_mp4
from app.worker.work import Control, Made

__all__ = ["TorchEngine"]

INVALID = JobError("invalid_output", "the model produced pixels that are not numbers; other parameters may do better")
_log = Log("worker")


class TorchEngine:
    """Implements work.Engine. `most_pictures` bounds one pipeline call, and with it the memory a batch takes."""

    def __init__(self, catalog: Catalog, device: str, most_pictures: int) -> None:
        self._catalog = catalog
        self._device = pipelines.resolve_device(device)
        self._most_pictures = most_pictures
        self._warm: dict[str, Any] = {}

    def load(self, model: str) -> None:
        begun = perf_counter()
        entry = self._catalog.models[model]
        self._warm[model] = pipelines.load(entry, self._device)
        _log.info("model_loaded", model=model, device=self._device, load_ms=(perf_counter() - begun) * 1000)

    def budget(self, model: str) -> int:
        return self._most_pictures * self._catalog.models[model].default_cost

    def run(self, jobs: Sequence[Job], control: Control) -> dict[str, Made | JobError]:
        entry = self._catalog.models[jobs[0].request.model]
        planned = calls(jobs, self._most_pictures)
        done: list[tuple[Sequence[Row], Denoised]] = []
        for number, rows in enumerate(planned):
            control.check()
            on_step = partial(_on_step, control, number, len(planned), jobs[0].request.num_inference_steps)
            done.append((rows, denoise(self._warm[entry.id], entry, rows, self._device, on_step)))
        return {job.id: _made(job, done) for job in jobs}

    def recover(self) -> None:
        """After a batch that raised: free its memory. Raises where the device itself has failed for good."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize(self._device)


def _on_step(control: Control, call: int, calls_total: int, steps_total: int, step: int) -> None:
    # Some schedulers take one step more than they were asked for.
    control.step = overall_step(call, calls_total, min(step, steps_total), steps_total)
    if step < steps_total:  # behind the last step only decoding is left: finish
        control.check()


def _made(job: Job, done: Sequence[tuple[Sequence[Row], Denoised]]) -> Made | JobError:
    """One job's share of the pipeline calls."""
    mine = [(rows, denoised) for rows, denoised in done if any(row.job is job for row in rows)]
    pictures = [
        (row.seed, denoised.pixels[i], denoised.applied[i])
        for rows, denoised in mine
        for i, row in enumerate(rows)
        if row.job is job
    ]
    if not all(np.isfinite(pixels).all() for _, pixels, _ in pictures):
        return INVALID
    request = job.request
    return Made(
        files=tuple(_file((pixels * 255).round().astype(np.uint8), request) for _, pixels, _ in pictures),
        seeds=tuple(seed for seed, _, _ in pictures),
        media_type=MEDIA_TYPES[request.output_format],
        applied=pictures[0][2],
        batch_size=max(len(rows) for rows, _ in mine),
        encode_ms=sum(denoised.encode_ms for _, denoised in mine),
        denoise_ms=sum(denoised.denoise_ms for _, denoised in mine),
        decode_ms=sum(denoised.decode_ms for _, denoised in mine),
    )


def _file(pixels: np.ndarray[Any, np.dtype[np.uint8]], request: Generation) -> bytes:
    if request.fps is not None:
        return encode_mp4(pixels, request.fps)
    return encode(Image.fromarray(pixels), request.output_format, request.output_compression)
