"""Encodes pixels as image files."""

from __future__ import annotations

import io
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from app.worker.outputs.parameters import SOFTWARE

__all__ = ["METADATA_MAX_CHARS", "encode", "thumbnail"]

#: UTF-16 in the one EXIF segment of a JPEG, which holds 64 KiB.
METADATA_MAX_CHARS = 16_000
THUMBNAIL_MAX_PX, THUMBNAIL_QUALITY = 512, 85


def encode(image: Image.Image, output_format: str, output_compression: int, metadata: str | None = None) -> bytes:
    """Returns the image as png, jpeg or webp.

    `output_compression` is the quality of jpeg and webp, 0 to 100, where 100 keeps most; png loses nothing at any.
    `metadata`, METADATA_MAX_CHARS at most, becomes the text `parameters` of a png, the EXIF UserComment of the others.
    """
    options: dict[str, dict[str, Any]] = {
        "png": {"compress_level": 6},
        "jpeg": {"quality": output_compression, "subsampling": 0 if output_compression >= 90 else 2},
        "webp": {"quality": output_compression},
    }
    said: dict[str, Any] = {}
    if metadata is not None:
        said = {"pnginfo": _png_text(metadata)} if output_format == "png" else {"exif": _exif(metadata)}
    buffer = io.BytesIO()
    image.save(buffer, format=output_format, **options[output_format], **said)
    return buffer.getvalue()


def thumbnail(image: Image.Image) -> bytes:
    """Returns a small JPEG of the image."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_MAX_PX, THUMBNAIL_MAX_PX))
    return encode(small, "jpeg", THUMBNAIL_QUALITY)


def _png_text(metadata: str) -> PngInfo:
    text = PngInfo()
    text.add_itxt("parameters", metadata)
    text.add_text("Software", SOFTWARE)
    return text


def _exif(metadata: str) -> bytes:
    exif = Image.Exif()
    exif.endian = ">"  # readers of these comments take their UTF-16 for big-endian, whatever the header says
    exif[ExifTags.Base.Software] = SOFTWARE
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + metadata.encode("utf-16-be")
    return exif.tobytes()
