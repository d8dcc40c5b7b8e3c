"""The files of a request as a worker reads them: opened, checked, and decoded to the sizes that the request needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from PIL import ImageOps

from app.api.inputs.images import REGENERATED_BELOW, UploadedImage, png_file
from app.api.inputs.sizes import fitting_size
from app.api.inputs.sources import InputSource, LoadedInput
from app.api.inputs.videos import UploadedVideo
from app.artifacts import input_name
from app.catalog import Model
from app.errors import InvalidParameter
from app.jobs import InputFile, InputFiles, InputRole, Job
from app.settings import Settings

__all__ = ["OpenedInput", "count_frames", "decode_inputs", "is_transparent", "mask_faults", "open_inputs"]

#: Roles whose transparent pixels are regenerated.
REGENERATED = (InputRole.IMAGE, InputRole.MASK)
#: Bytes of a file that are read at once for its digest.
DIGEST_BYTES = 2**18


@dataclass(frozen=True)
class OpenedInput:
    """A file whose header was read."""

    role: InputRole
    field: str
    upload: UploadedImage | UploadedVideo
    sha256: str


def open_inputs(files: Sequence[LoadedInput], settings: Settings) -> tuple[list[OpenedInput], list[InvalidParameter]]:
    """Returns the files that can be read, and the faults of the others."""
    opened, faults = list[OpenedInput](), list[InvalidParameter]()
    for source, file in files:
        try:
            opened.append(_open(source, file, settings))
        except InvalidParameter as fault:
            faults.append(fault)
    return opened, faults


def decode_inputs(files: Sequence[OpenedInput], job: Job, model: Model) -> tuple[Job, InputFiles]:
    """Decodes the files of a job one after the other.

    Returns the job with its files and their warnings, and their contents. Raises InvalidParameter for a file that
    cannot be decoded.
    """
    size = job.request.width, job.request.height
    inputs = [
        InputFile(file.role, input_name(job.id, file.role, index), file.sha256) for index, file in enumerate(files)
    ]
    image = next((file for file in files if file.role is InputRole.IMAGE), None)
    contents = dict[str, bytes | BinaryIO]()
    # The mask goes first: its decoded pixels are released before the image takes as much memory.
    for stored, file in sorted(zip(inputs, files, strict=True), key=lambda pair: pair[0].role is not InputRole.MASK):
        if isinstance(file.upload, UploadedVideo):
            contents[stored.name] = file.upload.file
            continue
        if file.role is InputRole.MASK:
            pixels = ImageOps.invert(file.upload.fit_alpha(*size))
        elif file.role is InputRole.REFERENCE:
            pixels = file.upload.fit(*fitting_size(*file.upload.size, model))
        else:
            pixels = file.upload.fit(*size)
        if file.role not in REGENERATED and file.upload.has_transparency:
            file.upload.warnings.append(f"{file.field}: transparent pixels were replaced by gray")
        contents[stored.name] = png_file(pixels)
        if file.upload is not (image and image.upload) or file.role is not InputRole.MASK:
            file.upload.release()
    uploads = dict.fromkeys(file.upload for file in files)
    warnings = [warning for upload in uploads for warning in upload.warnings]
    request = replace(job.request, inputs=tuple(inputs))
    return replace(job, request=request, warnings=(*job.warnings, *warnings)), contents


def count_frames(
    video: UploadedVideo, wanted: int | None, model: Model, faults: list[InvalidParameter]
) -> tuple[int, list[str]]:
    """Returns how many frames are made of a video, and what the caller is told. A video that is too short is added to
    the faults.
    """
    allowed = model.num_frames
    assert allowed is not None
    if wanted is None:
        grid = [count for count in range(allowed.min, min(video.frames, allowed.max) + 1) if allowed.holds(count)]
        wanted = grid[-1] if grid else allowed.min
    if wanted > video.frames:
        message = f"video: must have at least {wanted} frames, got {video.frames}"
        faults.append(InvalidParameter(message, param="video"))
    return wanted, [] if wanted >= video.frames else [
        f"video: the first {wanted} of its {video.frames} frames were used"
    ]


def mask_faults(mask: OpenedInput, image: OpenedInput) -> list[InvalidParameter]:
    """Returns what is wrong with a mask of this image."""
    if mask.upload.size != image.upload.size:
        got = " and ".join(f"{width}x{height}" for width, height in (image.upload.size, mask.upload.size))
        return [InvalidParameter(f"mask: must be as large as the image; they are {got}", param="mask")]
    faults = list[InvalidParameter]()
    if not is_transparent(mask, faults) and not faults:
        message = (
            f"mask: must be transparent (alpha below {REGENERATED_BELOW}) where the image is regenerated; black and "
            "white do not count"
        )
        faults.append(InvalidParameter(message, param="mask"))
    return faults


def is_transparent(file: OpenedInput, faults: list[InvalidParameter]) -> bool:
    """Whether some of its pixels are. That it cannot be decoded is added to the faults."""
    try:
        return file.upload.has_transparency
    except InvalidParameter as fault:
        faults.append(fault)
        return False


def _open(source: InputSource, file: BinaryIO, settings: Settings) -> OpenedInput:
    upload: UploadedImage | UploadedVideo
    if source.role is InputRole.VIDEO:
        limits = {"max_px": settings.input_max_px, "max_bytes": settings.video_max_bytes}
        upload = UploadedVideo(source.field, file, **limits)
    else:
        size_bytes, most = file.seek(0, os.SEEK_END), settings.input_max_bytes
        if size_bytes > most:  # an uploaded video may be larger than memory
            message = f"{source.field}: must be at most {most} bytes, got {size_bytes}"
            raise InvalidParameter(message, param=source.field)
        file.seek(0)
        upload = UploadedImage(source.field, file.read(size_bytes), max_px=settings.input_max_px, max_bytes=most)
    return OpenedInput(source.role, source.field, upload, _sha256(file))


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(DIGEST_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
