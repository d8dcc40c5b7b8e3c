"""From the pixels of a job's pipeline calls to its files, metadata and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from app.formats import MEDIA_TYPES
from app.jobs import ENDED_BEFORE_FIRST_STEP, NO_STEP_WITHIN, AppliedGuidance, Generation, Job, JobError
from app.worker.engine.pipeline_call import CallResult
from app.worker.outputs.encode import METADATA_MAX_CHARS, encode, thumbnail
from app.worker.outputs.parameters import parameters
from app.worker.outputs.video import encode_mp4
from app.worker.protocol import JobOutput

__all__ = ["NAN", "to_job_output"]

NAN = JobError("nan_output", "the model produced pixels that are not numbers; other parameters may do better")


def to_job_output(job: Job, images: Sequence[CallResult]) -> JobOutput | JobError:
    """Encodes what the job's pipeline calls made, in the order of its images."""
    values = (image.pixels for image in images), (image.sound.samples for image in images if image.sound is not None)
    if not all(np.isfinite(array).all() for array in chain(*values)):
        return NAN
    files, thumbnails, file_warnings = zip(*(_encode(image, job) for image in images), strict=True)
    warnings = (
        *filter(None, file_warnings),
        *(warning for image in images for warning in image.warnings),
        *_guidance_warnings(job.request, images[0].applied),
    )
    return JobOutput(
        files=files,
        thumbnails=tuple(filter(None, thumbnails)),
        warnings=tuple(dict.fromkeys(warnings)),
        seeds=tuple(image.seed for image in images),
        media_type=MEDIA_TYPES[job.request.output_format],
        applied=images[0].applied,
        batch_size=max(image.batch_size for image in images),
        encode_ms=max(image.encode_ms for image in images),
        denoise_ms=max(image.denoise_ms for image in images),
        decode_ms=max(image.decode_ms for image in images),
        begun_at=min(image.begun_at for image in images),
        first_step_at=min(image.first_step_at for image in images),
    )


def _guidance_warnings(request: Generation, applied: AppliedGuidance) -> Iterator[str]:
    if applied.reason == ENDED_BEFORE_FIRST_STEP:
        strength = request.strength
        at, more = ("", "") if strength is None else (f" of an edit at strength {strength:g}", " or strength")
        yield f"nag was not applied: end {applied.end:g} is over before the first step{at}; raise nag.end{more}"
    if applied.reason == NO_STEP_WITHIN:
        yield (
            f"nag was not applied: no step lies between start {applied.start:g} and end {applied.end:g}; "
            "lower nag.start or raise nag.end"
        )


def _encode(image: CallResult, job: Job) -> tuple[bytes | BinaryIO, bytes | None, str | None]:
    """Returns the file of an image or a video, a video's thumbnail, and a warning if there is one."""
    request = job.request
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = (image.pixels * 255).round().astype(np.uint8)
    metadata = parameters(request, image.seed, image.applied, job.warnings) if request.embed_metadata else None
    if request.fps is not None:
        assert request.video_codec is not None
        middle = Image.fromarray(pixels[len(pixels) // 2])
        file = encode_mp4(pixels, request.fps, request.video_codec, metadata, image.sound)
        return file, thumbnail(middle), None
    warning = None
    if metadata is not None and request.output_format != "png" and len(metadata) > METADATA_MAX_CHARS:
        metadata = None
        warning = f"embed_metadata was left out: a {request.output_format} has no room for so long a text"
    image_file = encode(Image.fromarray(pixels), request.output_format, request.output_compression, metadata)
    return image_file, None, warning
