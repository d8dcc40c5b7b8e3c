"""Pixels to a file's bytes."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

__all__ = ["encode"]


def encode(image: Image.Image, output_format: str, output_compression: int) -> bytes:
    """The picture as png, jpeg or webp.

    `output_compression` is the quality of jpeg and webp, 0 to 100, where 100 keeps most; png loses nothing at any.
    """
    options: dict[str, dict[str, Any]] = {
        "png": {"compress_level": 6},
        "jpeg": {"quality": output_compression, "subsampling": 0 if output_compression >= 90 else 2},
        "webp": {"quality": output_compression},
    }
    buffer = io.BytesIO()
    image.save(buffer, format=output_format, **options[output_format])
    return buffer.getvalue()
