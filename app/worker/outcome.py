"""From the pixels of a batch to what each of its jobs gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from app.formats import MEDIA_TYPES
from app.jobs import ENDED_BEFORE_FIRST_STEP, NO_STEP_WITHIN, Applied, Generation, Job, JobError
from app.worker.batching import Row
from app.worker.denoise import Denoised
from app.worker.encode import METADATA_MAX_CHARS, encode, thumbnail
from app.worker.parameters import parameters
from app.worker.video import encode_mp4
from app.worker.work import Made

__all__ = ["NAN", "OUT_OF_MEMORY", "Done", "outcome"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

NAN = JobError("nan_output", "the model produced pixels that are not numbers; other parameters may do better")
OUT_OF_MEMORY = JobError("out_of_memory", "one picture of this size does not fit into the worker's memory")


@dataclass(frozen=True)
class Done:
    """One pipeline call; without `denoised`, its jobs have failed: by default because memory did not suffice."""

    rows: Sequence[Row]
    denoised: Denoised | None
    error: JobError = OUT_OF_MEMORY


def outcome(job: Job, calls: Sequence[Done]) -> Made | JobError:
    """One job's share of the pipeline calls."""
    mine = [call for call in calls if any(row.job is job for row in call.rows)]
    denoised = [call.denoised for call in mine if call.denoised is not None]
    for call in mine:
        if call.denoised is None:
            return call.error
    pictures = [
        (row.seed, each.pixels[i], each.applied[i])
        for call, each in zip(mine, denoised, strict=True)
        for i, row in enumerate(call.rows)
        if row.job is job
    ]
    if not all(np.isfinite(pixels).all() for _, pixels, _ in pictures):
        return NAN
    request = job.request
    made = [
        _made((pixels * 255).round().astype(np.uint8), request, seed, applied) for seed, pixels, applied in pictures
    ]
    return Made(
        files=tuple(each.file for each in made),
        thumbnails=tuple(each.thumbnail for each in made if each.thumbnail is not None),
        warnings=tuple(
            dict.fromkeys(
                (
                    *(each.warning for each in made if each.warning is not None),
                    *_prompt_warnings(job, mine),
                    *_guidance_warnings(request, pictures[0][2]),
                )
            )
        ),
        seeds=tuple(seed for seed, _, _ in pictures),
        media_type=MEDIA_TYPES[request.output_format],
        applied=pictures[0][2],
        batch_size=max(len(call.rows) for call in mine),
        encode_ms=sum(each.encode_ms for each in denoised),
        denoise_ms=sum(each.denoise_ms for each in denoised),
        decode_ms=sum(each.decode_ms for each in denoised),
        begun_at=min(each.begun_at for each in denoised),
    )


def _prompt_warnings(job: Job, calls: Sequence[Done]) -> Iterator[str]:
    for call in calls:
        findings = call.denoised.findings if call.denoised is not None else ()
        for row, found in zip(call.rows, findings, strict=False):
            if row.job is job:
                yield from (finding.message for finding in found)


def _guidance_warnings(request: Generation, applied: Applied) -> Iterator[str]:
    if applied.reason == ENDED_BEFORE_FIRST_STEP:
        edit = request.edit
        at, more = ("", "") if edit is None else (f" of an edit at strength {edit.strength:g}", " or strength")
        yield f"nag was not applied: end {applied.end:g} is over before the first step{at}; raise nag.end{more}"
    if applied.reason == NO_STEP_WITHIN:
        yield (
            f"nag was not applied: no step lies between start {applied.start:g} and end {applied.end:g}; "
            "lower nag.start or raise nag.end"
        )


@dataclass(frozen=True)
class _Made:
    file: bytes | BinaryIO
    thumbnail: bytes | None = None
    warning: str | None = None


def _made(pixels: Pixels, request: Generation, seed: int, applied: Applied) -> _Made:
    metadata = parameters(request, seed, applied) if request.embed_metadata else None
    if request.fps is not None:
        assert request.video_codec is not None
        middle = Image.fromarray(pixels[len(pixels) // 2])
        return _Made(encode_mp4(pixels, request.fps, request.video_codec, metadata), thumbnail(middle))
    warning = None
    if metadata is not None and request.output_format != "png" and len(metadata) > METADATA_MAX_CHARS:
        metadata, warning = (
            None,
            f"embed_metadata was left out: a {request.output_format} has no room for so long a text",
        )
    picture = encode(Image.fromarray(pixels), request.output_format, request.output_compression, metadata)
    return _Made(picture, warning=warning)
