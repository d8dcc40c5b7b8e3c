"""From the pixels of a batch to what each of its jobs gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from app.formats import MEDIA_TYPES
from app.jobs import Generation, Job, JobError
from app.worker.batching import Row
from app.worker.denoise import Denoised
from app.worker.encode import encode
from app.worker.video import encode_mp4
from app.worker.work import Made

__all__ = ["NAN", "OUT_OF_MEMORY", "Done", "outcome"]

NAN = JobError("nan_output", "the model produced pixels that are not numbers; other parameters may do better")
OUT_OF_MEMORY = JobError("out_of_memory", "one picture of this size does not fit into the worker's memory")


@dataclass(frozen=True)
class Done:
    """One pipeline call; `denoised` is None where memory did not suffice for it."""

    rows: Sequence[Row]
    denoised: Denoised | None


def outcome(job: Job, calls: Sequence[Done]) -> Made | JobError:
    """One job's share of the pipeline calls."""
    mine = [call for call in calls if any(row.job is job for row in call.rows)]
    denoised = [call.denoised for call in mine if call.denoised is not None]
    if len(denoised) < len(mine):
        return OUT_OF_MEMORY
    pictures = [
        (row.seed, each.pixels[i], each.applied[i])
        for call, each in zip(mine, denoised, strict=True)
        for i, row in enumerate(call.rows)
        if row.job is job
    ]
    if not all(np.isfinite(pixels).all() for _, pixels, _ in pictures):
        return NAN
    request = job.request
    return Made(
        files=tuple(_file((pixels * 255).round().astype(np.uint8), request) for _, pixels, _ in pictures),
        seeds=tuple(seed for seed, _, _ in pictures),
        media_type=MEDIA_TYPES[request.output_format],
        applied=pictures[0][2],
        batch_size=max(len(call.rows) for call in mine),
        encode_ms=sum(each.encode_ms for each in denoised),
        denoise_ms=sum(each.denoise_ms for each in denoised),
        decode_ms=sum(each.decode_ms for each in denoised),
    )


def _file(pixels: np.ndarray[Any, np.dtype[np.uint8]], request: Generation) -> bytes:
    if request.fps is not None:
        return encode_mp4(pixels, request.fps)
    return encode(Image.fromarray(pixels), request.output_format, request.output_compression)
