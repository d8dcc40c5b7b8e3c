"""Reads uploaded images: identifies the kind, bounds the size by the header, decodes, orients, converts to sRGB and
flattens.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TypeVar

from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from app.api.inputs.image_kinds import READABLE, identify, open_header
from app.errors import InvalidParameter

__all__ = ["REGENERATED_BELOW", "UploadedImage", "png_file"]

T = TypeVar("T")

#: A pixel of lower alpha counts as transparent, of 0 to 255.
REGENERATED_BELOW = 128
#: Of PNG and TIFF files with one channel of 16 bits.
GRAY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", *GRAY_16})
#: By EXIF orientation; 1 is upright.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Orientations that exchange width and height.
TURNED = range(5, 9)
#: The middle of the values: it steers a denoiser least.
NEUTRAL = (128, 128, 128)
SRGB = ImageCms.createProfile("sRGB")
#: A JPEG is decoded at half, a quarter or an eighth of its size if that is still so many times the size asked for.
OVERSAMPLING = 2


class UploadedImage:
    """One uploaded image. The header is read at once, the pixels when they are first asked for.

    `size` is the upright width and height in pixels. `warnings` names what was lost or assumed so far, one sentence
    each. Not safe for use by several threads at once.
    """

    def __init__(self, name: str, data: bytes, *, max_px: int, max_bytes: int) -> None:
        """`name` is the request's field, for messages. Raises InvalidParameter."""
        if len(data) > max_bytes:
            raise InvalidParameter(f"{name}: must be at most {max_bytes} bytes, got {len(data)}", param=name)
        self._name, self._kind = name, _kind(name, data)
        file = self._read(lambda: open_header(self._kind, data))
        if file.width * file.height > max_px:
            message = f"{name}: must have at most {max_px} pixels, got {file.width}x{file.height}"
            raise InvalidParameter(message, param=name)
        if file.mode not in MODES:
            message = f"{name}: must be RGB, gray or CMYK with 8 or 16 bits per channel, got the mode {file.mode}"
            raise InvalidParameter(message, param=name)
        self._orientation = _orientation(file)
        width, height = file.size
        self.size = (height, width) if self._orientation in TURNED else (width, height)
        self._profile: bytes | None = file.info.get("icc_profile")
        self._may_be_transparent = file.has_transparency_data
        self._file: ImageFile.ImageFile | None = file  # until it is decoded
        self._pixels: Image.Image | None = None
        self.warnings: list[str] = []
        if getattr(file, "is_animated", False):
            self.warnings.append(f"{name}: the {self._kind} file has several frames; only the first was used")
        if (bits := _bits_per_channel(file, data)) > 8:
            self.warnings.append(f"{name}: {bits} bits per channel were reduced to 8")

    @property
    def has_transparency(self) -> bool:
        """Whether some pixel is more transparent than opaque. Decodes only a file that has an alpha channel or key."""
        if not self._may_be_transparent:
            return False
        lowest, _ = self._decode().getchannel("A").getextrema()
        assert isinstance(lowest, (int, float))
        return lowest < REGENERATED_BELOW

    def fit(self, width: int, height: int) -> Image.Image:
        """Returns the largest centred part of these proportions, scaled: upright, RGB, in sRGB.

        Colours under transparent pixels do not show; neutral gray stands there.
        """
        image = self._scale(self._decode(self._unturned(width, height)), width, height, Image.Resampling.LANCZOS)
        return self._flatten(self._to_srgb(image))

    def fit_alpha(self, width: int, height: int) -> Image.Image:
        """Returns the alpha channel of the same part, in mode L."""
        alpha = self._decode().getchannel("A")
        return self._scale(alpha, width, height, Image.Resampling.BILINEAR)  # whose values do not overshoot

    def release(self) -> None:
        """Lets the decoded pixels go; the image cannot be used after that."""
        self._pixels = None

    def _unturned(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self._orientation in TURNED else (width, height)

    def _scale(self, image: Image.Image, width: int, height: int, filter_: Image.Resampling) -> Image.Image:
        fitted = ImageOps.fit(image, self._unturned(width, height), filter_)
        turn = TRANSPOSITIONS.get(self._orientation)
        return fitted if turn is None else fitted.transpose(turn)

    def _decode(self, fitting: tuple[int, int] | None = None) -> Image.Image:
        """In mode L, RGB or CMYK, or RGBA for a file with transparency; once, and a JPEG no larger than needed."""
        if self._pixels is None:
            file, self._file = self._file, None
            assert file is not None
            if fitting is not None:
                file.draft(None, (fitting[0] * OVERSAMPLING, fitting[1] * OVERSAMPLING))
            self._read(file.load)
            self._pixels = _plain_mode(file)
        return self._pixels

    def _to_srgb(self, image: Image.Image) -> Image.Image:
        if self._profile:
            try:
                return _convert_profile(image, self._profile)
            except (ImageCms.PyCMSError, OSError, ValueError):
                self.warnings.append(f"{self._name}: the colour profile was ignored: it does not fit the image")
        elif image.mode == "CMYK":
            self.warnings.append(f"{self._name}: CMYK without a colour profile; the colours are approximate")
        return image if image.mode == "RGBA" else image.convert("RGB")

    @staticmethod
    def _flatten(image: Image.Image) -> Image.Image:
        if image.mode != "RGBA":
            return image
        # Even a pixel of little alpha shows its own colour, so that the edge of a logo keeps it.
        visible = image.getchannel("A").point(lambda alpha: min(alpha * 8, 255))
        return Image.composite(image.convert("RGB"), Image.new("RGB", image.size, NEUTRAL), visible)

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Exception as exc:  # whatever a broken file makes of its reader
            message = f"{self._name}: the {self._kind} file is broken or incomplete; send the whole file"
            raise InvalidParameter(message, param=self._name) from exc


def png_file(image: Image.Image) -> bytes:
    """Encodes losslessly and fast."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _kind(name: str, data: bytes) -> str:
    """Returns a kind that is read. Raises InvalidParameter."""
    if not data:
        raise InvalidParameter(f"{name}: the file is empty", param=name)
    kind = identify(data)
    if kind is None or kind not in READABLE:
        found = f"a {kind} file" if kind else f"a file of an unknown kind that begins with {data[:8].hex(' ')}"
        raise InvalidParameter(f"{name}: must be {_listed(READABLE)}, got {found}", param=name)
    return kind


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _orientation(file: ImageFile.ImageFile) -> int:
    """Returns the orientation by EXIF alone, as browsers show an image. Metadata that cannot be read means upright."""
    exif = Image.Exif()
    try:
        exif.load(file.info.get("exif") or b"")
        found = exif.get(ExifTags.Base.Orientation)
    except Exception:  # whatever broken metadata makes of its reader
        return 1
    return found if found in TRANSPOSITIONS else 1


def _bits_per_channel(file: ImageFile.ImageFile, data: bytes) -> int:
    """In PNG, TIFF and HEIC files; 8 for the others, of which Pillow does not report it."""
    if file.format == "PNG":
        return data[24]
    if isinstance(file, TiffImageFile):
        return max(file.tag_v2.get(ExifTags.Base.BitsPerSample) or (1,))
    return int(file.info.get("bit_depth", 8))


def _plain_mode(image: Image.Image) -> Image.Image:
    if image.mode in GRAY_16:
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Raises PyCMSError or OSError for a profile that is broken or of other channels than the image."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.xcolor_space.strip() == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, SRGB, outputMode=mode)
    assert converted is not None
    return converted
