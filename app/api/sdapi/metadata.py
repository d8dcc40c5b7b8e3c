"""The text about an image inside its file: reads it from PNG, JPEG and WebP, and writes it into a PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from zlib import crc32

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from app.api.inputs.image_kinds import identify
from app.errors import InvalidParameter

__all__ = ["PARAMETERS", "read_texts", "with_parameters"]

READERS: Mapping[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
PARAMETERS = "parameters"
TEXT_CHUNKS = (b"tEXt", b"iTXt", b"zTXt")
#: The signature and IHDR.
HEAD_BYTES = 33
#: EXIF names the encoding of a comment in its first eight bytes.
ENCODINGS = {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "ascii", b"\0\0\0\0\0\0\0\0": "utf-8"}
#: Longer texts are left out.
TEXT_MAX_CHARS = 100_000


def read_texts(data: bytes) -> dict[str, str]:
    """Returns the texts of an image file by their names; that about its making is `parameters`.

    The pixels are not decoded. Raises InvalidParameter for a file of another kind, or a broken one.
    """
    kind = identify(data)
    if kind is None or kind not in READERS:
        raise InvalidParameter(f"image: must be {', '.join(READERS)}, got {kind or 'an unknown kind'}", param="image")
    try:
        file = READERS[kind](io.BytesIO(data))
        texts = {str(name): value for name, value in file.info.items() if isinstance(value, str)}
        comment = _comment(file)
    except Exception as exc:  # whatever a broken file makes of its reader
        raise InvalidParameter(f"image: the {kind} file is broken", param="image") from exc
    if comment:
        texts.setdefault(PARAMETERS, comment)
    return {name: text for name, text in texts.items() if len(text) <= TEXT_MAX_CHARS}


def with_parameters(png: bytes, text: str) -> bytes:
    """Returns the PNG with this text as its `parameters`, in place of the one that it has."""
    chunk = b"iTXt" + PARAMETERS.encode() + b"\0\0\0\0\0" + text.encode()
    parts: list[bytes | memoryview] = [
        png[:HEAD_BYTES],
        len(chunk[4:]).to_bytes(4, "big"),
        chunk,
        crc32(chunk).to_bytes(4, "big"),
    ]
    view, start = memoryview(png), HEAD_BYTES
    while start < len(png):
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        name, content = bytes(view[start + 4 : start + 8]), view[start + 8 : end - 4]
        if name not in TEXT_CHUNKS or bytes(content[: len(PARAMETERS) + 1]) != PARAMETERS.encode() + b"\0":
            parts.append(view[start:end])
        start = end
    return b"".join(parts)


def _comment(file: Image.Image) -> str | None:
    comment = file.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes):
        return None
    return comment[8:].decode(ENCODINGS.get(comment[:8], "utf-8"), "replace").strip("\0") or None
