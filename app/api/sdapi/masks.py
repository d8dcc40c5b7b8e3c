"""Masks of the web UI, white where the image is regenerated, as the masks of this service, transparent there."""

from __future__ import annotations

from PIL import Image, ImageOps

from app.api.inputs.images import UploadedImage, png_file
from app.errors import InvalidParameter

__all__ = ["transparent_mask"]

#: The brightness of a pixel from which on it is regenerated, of 0 to 255; the web UI's own.
REGENERATED_ABOVE = 128
#: Proportions of mask and image may differ by so many pixels: a mask drawn at another size is rounded.
TOLERANCE_PX = 2


def transparent_mask(
    upload: UploadedImage, size: tuple[int, int] | None, *, is_inverted: bool
) -> tuple[bytes, list[str]]:
    """Returns the mask as a PNG with an alpha channel, scaled to this size if it is given, and warnings.

    Raises InvalidParameter.
    """
    size = size or upload.size
    if abs(size[0] * upload.size[1] / upload.size[0] - size[1]) > TOLERANCE_PX:
        got = " and ".join(f"{width}x{height}" for width, height in (size, upload.size))
        raise InvalidParameter(f"mask: must have the proportions of the image; they are {got}", param="mask")
    white = upload.fit_alpha(*size) if upload.has_transparency else upload.fit(*size).convert("L")
    opaque = white.point(lambda value: 255 if (value >= REGENERATED_ABOVE) is is_inverted else 0)
    if opaque.getextrema() == (255, 255):
        part = "white" if not is_inverted else "black"
        raise InvalidParameter(f"mask: must be {part} where the image is regenerated, and is so nowhere", param="mask")
    result = Image.merge("RGBA", [*ImageOps.invert(opaque).convert("RGB").split(), opaque])
    return png_file(result), upload.warnings
