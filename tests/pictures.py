"""What is read from a picture here."""

from __future__ import annotations

import io
from typing import Any

from PIL import ExifTags, Image


def read_back(data: bytes) -> str | None:
    """What it says about its own making, as any reader of these fields finds it."""
    picture: Any = Image.open(io.BytesIO(data))  # of PNG, a class with `text`
    if picture.format == "PNG":
        text: str | None = picture.text.get("parameters")
        return text
    comment = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if comment is None:
        return None
    assert comment[:8] == b"UNICODE\0"
    return str(comment[8:].decode("utf-16-be"))


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
