"""Pictures that a caller sends: known by their content, bounded before they are decoded, laid out as they are used."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from PIL import Image, ImageOps

from app.artifacts import Artifacts, input_name
from app.catalog import Model
from app.errors import InvalidParameter
from app.jobs import Edit

__all__ = ["Inputs", "Sent", "fitting_size"]

FORMATS = ("PNG", "JPEG", "WEBP")
#: Of 8 bits a channel; what else there is would lose what it has more.
MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
OPAQUE_FROM = 128

# Where Pillow is unsure it warns; here that is a refusal.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Sent:
    """A picture as it came, upright, and where it is to be made anew: white in a mask of its size."""

    image: Image.Image
    mask: Image.Image | None
    digest: str

    @classmethod
    def read(cls, image: bytes, mask: bytes | None, max_px: int, max_bytes: int) -> Self:
        """In a thread: it decodes. Raises InvalidParameter."""
        picture = _opened("image", image, max_px, max_bytes)
        anew = _transparent(picture)
        if mask is not None:
            other = _opened("mask", mask, max_px, max_bytes)
            if other.size != picture.size:
                said = " and ".join(f"{width}x{height}" for width, height in (picture.size, other.size))
                raise InvalidParameter(f"mask: must be as large as the image; they are {said}", param="mask")
            anew = _transparent(other)
            if anew is None:
                raise InvalidParameter("mask: must be transparent where the image is made anew", param="mask")
        digest = hashlib.sha256(image).hexdigest() + ("" if mask is None else hashlib.sha256(mask).hexdigest())
        return cls(picture.convert("RGB"), anew, digest)

    def laid_out(self, width: int, height: int, strength: float) -> Inputs:
        """In a thread. The largest part of these proportions, from the middle, scaled."""
        size = (width, height)
        mask = None if self.mask is None else _png(ImageOps.fit(self.mask, size, Image.Resampling.NEAREST))
        return Inputs(strength, _png(ImageOps.fit(self.image, size, Image.Resampling.LANCZOS)), mask, self.digest)


@dataclass(frozen=True)
class Inputs:
    """What a worker starts from, as PNG files; `digest` is of what was sent."""

    strength: float
    image: bytes
    mask: bytes | None
    digest: str

    def edit(self, job_id: str) -> Edit:
        """The files under names of the job's, not stored yet."""
        image, mask = (input_name(job_id, part) for part in ("image", "mask"))
        return Edit(self.strength, image, None if self.mask is None else mask)

    async def store(self, edit: Edit, artifacts: Artifacts) -> None:
        """Raises ArtifactsError; some of the files may be there all the same."""
        files = (self.image,) if self.mask is None else (self.image, self.mask)
        for name, data in zip(edit.names, files, strict=True):
            await artifacts.save(name, data)


def fitting_size(image: Image.Image, model: Model) -> tuple[int, int]:
    """Width and height in pixels: the picture's proportions, the area of the model's default, on its grid."""
    scale = (model.width.default * model.height.default / (image.width * image.height)) ** 0.5
    return model.width.nearest(image.width * scale), model.height.nearest(image.height * scale)


def _opened(name: str, data: bytes, max_px: int, max_bytes: int) -> Image.Image:
    if len(data) > max_bytes:
        raise InvalidParameter(f"{name}: a file has at most {max_bytes} bytes, not {len(data)}", param=name)
    opened = _tried(name, lambda: Image.open(io.BytesIO(data), formats=FORMATS))
    if opened.width * opened.height > max_px:
        message = f"{name}: has at most {max_px} pixels, not {opened.width}x{opened.height}"
        raise InvalidParameter(message, param=name)
    if opened.mode not in MODES:
        raise InvalidParameter(f"{name}: must have 8 bits a channel, not the mode {opened.mode}", param=name)
    if getattr(opened, "is_animated", False):
        raise InvalidParameter(f"{name}: must be one picture, not an animation", param=name)
    return _tried(name, lambda: ImageOps.exif_transpose(opened))


def _tried(name: str, read: Callable[[], Image.Image]) -> Image.Image:
    try:
        return read()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise InvalidParameter(f"{name}: has too many pixels", param=name) from exc
    except Exception as exc:  # whatever a broken file makes of its reader
        raise InvalidParameter(f"{name}: must be a whole PNG, JPEG or WebP file", param=name) from exc


def _transparent(image: Image.Image) -> Image.Image | None:
    """White where it is; None where it is nowhere."""
    if not image.has_transparency_data:
        return None
    anew = image.convert("RGBA").getchannel("A").point(lambda alpha: 0 if alpha >= OPAQUE_FROM else 255)
    return anew if anew.getbbox() else None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
