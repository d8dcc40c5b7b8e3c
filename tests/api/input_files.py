"""Input files of many kinds, and what becomes of each.

python -m tests.api.input_files
Prints the table of docs/server/inputs.md.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from tests.icc import cmyk_with_green_cyan, display_p3

__all__ = [
    "BLUE", "CASES", "GRAY", "HEIC", "RED", "XMP", "Case", "chunk", "file_of", "halves", "png_16", "png_with", "table",
    "turned", "video_file",
]  # fmt: skip

RED, BLUE, GRAY = (255, 0, 0), (0, 0, 255), (128, 128, 128)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
HEIC = Path(__file__).with_name("files") / "turned.heic"  # red and blue, by EXIF turned by 90 degrees
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
FRAMES = 10


@dataclass(frozen=True)
class Case:
    """An input file: `make` returns its bytes, and `done` says what becomes of it.

    says: a warning, or the message of a refusal. colors: those of the left and the right half, or with `is_turned` of
    the upper and the lower one; None for a file that is refused. is_video: sent to a model that changes videos, any
    other file as a reference.
    """

    name: str
    make: Callable[[], bytes]
    done: str
    says: str = ""
    colors: tuple[tuple[int, ...], tuple[int, ...]] | None = (RED, BLUE)
    is_turned: bool = False
    is_video: bool = False


def halves(mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (32, 0, 64, 32))
    return image.convert(mode)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def chunk(name: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png_with(chunk_: bytes, png: bytes | None = None, *, last: bool = False) -> bytes:
    """The chunk stands after the header, or before the end."""
    png = png or file_of(halves(), "PNG")
    at = len(png) - 12 if last else 33
    return png[:at] + chunk_ + png[at:]


def png_16(channels: int, *values: int, key: bytes = b"", side: int = 8) -> bytes:
    """One pixel value everywhere in a square of 16 bits per channel."""
    header = struct.pack(">IIBBBBB", side, side, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = (b"\0" + struct.pack(f">{channels}H", *values) * side) * min(side, 64)
    body = chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"") + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@cache
def video_file(kind: str, codec: str = "libx264", rotation: int = 0, frames: int = FRAMES) -> bytes:
    """Red on the left and blue on the right, shown turned clockwise by `rotation` degrees."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=16)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if rotation:
            stream.set_display_rotation(-rotation)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(halves()), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _transparent(mode: str = "RGBA") -> Image.Image:
    image = halves("RGBA")
    image.paste((0, 255, 0, 0), (32, 0, 64, 32))
    return image if mode == "RGBA" else image.convert(mode)


def _palette_key() -> bytes:
    """A palette whose blue is transparent."""
    image = Image.new("P", (64, 32))
    image.putpalette([*RED, *BLUE])
    image.paste(1, (32, 0, 64, 32))
    return file_of(image, "PNG", transparency=1)


def _others() -> list[Image.Image]:
    """The images behind the first, new ones for each file: Pillow's writers change them."""
    return [Image.new("RGB", (64, 32), "lime")]


def _gray(*values: int, mode: str = "L") -> Image.Image:
    image = Image.new("L", (64, 32), values[0])
    image.paste(values[1], (32, 0, 64, 32))
    return image.convert(mode)


def _jpeg_with_broken_exif() -> bytes:
    jpeg = file_of(halves(), "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 15) + b"Exif\0\0garbage" + jpeg[2:]


def _xmp() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP)
    return file_of(halves(), "PNG", pnginfo=text)


def _noise(kind: str) -> bytes:
    data = file_of(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    return data[: len(data) // 2]


def _mp4_with_sound_alone() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


HIGH = {"quality": 95, "subsampling": 0}
P3 = Image.new("RGB", (64, 32), (200, 50, 50))
CYAN = Image.new("CMYK", (64, 32), (255, 0, 0, 0))
FIRST = "the first image is used"
GRAYED = ("gray stands where it is transparent", "transparent pixels were replaced by gray")
REDUCED = "16 bits per channel were reduced to 8"
IGNORED = "the colour profile was ignored: it does not fit the image"
KINDS = "must be PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC, got a"
MODES = "must be RGB, gray or CMYK with 8 or 16 bits per channel, got the mode"
BROKEN = "file is broken or incomplete; send the whole file"


def _several(kind: str) -> str:
    return f"the {kind} file has several frames; only the first was used"


CASES = (
    Case("PNG", lambda: file_of(halves(), "PNG"), "read"),
    Case("PNG with a palette", lambda: file_of(halves("P"), "PNG"), "read"),
    Case("PNG, gray", lambda: file_of(_gray(255, 0), "PNG"), "read", colors=(WHITE, BLACK)),
    Case("PNG, 1 bit per pixel", lambda: file_of(_gray(255, 0, mode="1"), "PNG"), "read", colors=(WHITE, BLACK)),
    Case("PNG, 16 bits, RGB", lambda: png_16(3, 0xABCD, 0, 0), "reduced to 8 bits", REDUCED, ((0xAB, 0, 0),) * 2),
    Case("PNG, 16 bits, gray", lambda: png_16(1, 0xABCD), "reduced to 8 bits", REDUCED, ((0xAB,) * 3,) * 2),
    Case("PNG with transparent pixels", lambda: file_of(_transparent(), "PNG"), *GRAYED, (RED, GRAY)),
    Case("PNG with a transparent palette entry", _palette_key, *GRAYED, (RED, GRAY)),
    Case("PNG, gray with alpha", lambda: file_of(_transparent("LA"), "PNG"), *GRAYED, ((76,) * 3, GRAY)),
    Case("PNG, animated", lambda: file_of(halves(), "PNG", save_all=True, append_images=_others()), FIRST,
         _several("PNG")),
    Case("PNG in Display P3", lambda: file_of(P3, "PNG", icc_profile=display_p3()), "converted to sRGB",
         colors=((218, 24, 40),) * 2),
    Case("PNG with a profile for CMYK", lambda: file_of(halves(), "PNG", icc_profile=cmyk_with_green_cyan()),
         "read as sRGB", IGNORED),
    Case("PNG with a damaged profile", lambda: png_with(chunk(b"iCCP", b"name\0\0", checksum=0)), "read as sRGB"),
    Case("PNG, turned by EXIF", lambda: file_of(halves(), "PNG", exif=turned(6)), "turned", is_turned=True),
    Case("PNG, turned by EXIF at its end", lambda: png_with(chunk(b"eXIf", turned(6)[6:]), last=True), "turned",
         is_turned=True),
    Case("PNG, turned by XMP", _xmp, "not turned, as browsers show it"),
    Case("PNG with 20 MB of compressed text",
         lambda: png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))), "the text is not read"),
    Case("JPEG", lambda: file_of(halves(), "JPEG", **HIGH), "read"),
    Case("JPEG, progressive", lambda: file_of(halves(), "JPEG", progressive=True, **HIGH), "read"),
    Case("JPEG, gray", lambda: file_of(_gray(255, 0), "JPEG"), "read", colors=(WHITE, BLACK)),
    Case("JPEG in CMYK with a profile", lambda: file_of(CYAN, "JPEG", quality=100, icc_profile=cmyk_with_green_cyan()),
         "converted to sRGB", colors=((0, 207, 0),) * 2),
    Case("JPEG in CMYK without a profile", lambda: file_of(CYAN, "JPEG", quality=100), "converted by rule of thumb",
         "CMYK without a colour profile; the colours are approximate", ((0, 255, 255),) * 2),
    Case("JPEG in Display P3", lambda: file_of(P3, "JPEG", quality=100, icc_profile=display_p3()), "converted to sRGB",
         colors=((218, 24, 40),) * 2),
    Case("JPEG, turned by EXIF", lambda: file_of(halves(), "JPEG", exif=turned(6), **HIGH), "turned", is_turned=True),
    Case("JPEG, mirrored by EXIF", lambda: file_of(halves(), "JPEG", exif=turned(2), **HIGH), "mirrored",
         colors=(BLUE, RED)),
    Case("JPEG with broken EXIF", _jpeg_with_broken_exif, "read, upright"),
    Case("JPEG of a phone, with depth map and preview",
         lambda: file_of(halves(), "MPO", save_all=True, append_images=_others(), **HIGH), "the photo is used"),
    Case("WebP", lambda: file_of(halves(), "WEBP", quality=95), "read"),
    Case("WebP, lossless, with transparent pixels", lambda: file_of(_transparent(), "WEBP", lossless=True), *GRAYED,
         (RED, GRAY)),
    Case("WebP, animated", lambda: file_of(halves(), "WEBP", save_all=True, append_images=_others()), FIRST,
         _several("WebP")),
    Case("GIF", lambda: file_of(halves(), "GIF"), "read"),
    Case("GIF, animated", lambda: file_of(halves(), "GIF", save_all=True, append_images=_others()), FIRST,
         _several("GIF")),
    Case("BMP", lambda: file_of(halves(), "BMP"), "read"),
    Case("TIFF, LZW", lambda: file_of(halves(), "TIFF", compression="tiff_lzw"), "read"),
    Case("TIFF in CMYK", lambda: file_of(halves("CMYK"), "TIFF"), "converted by rule of thumb",
         "CMYK without a colour profile; the colours are approximate"),
    Case("TIFF, 16 bits, gray", lambda: file_of(Image.new("I;16", (8, 8), 0xABCD), "TIFF"), "reduced to 8 bits",
         REDUCED, ((0xAB,) * 3,) * 2),
    Case("TIFF with several pages", lambda: file_of(halves(), "TIFF", save_all=True, append_images=_others()), FIRST,
         _several("TIFF")),
    Case("AVIF", lambda: file_of(halves(), "AVIF", quality=95, subsampling="4:4:4"), "read"),
    Case("AVIF, turned by EXIF", lambda: file_of(halves(), "AVIF", exif=turned(6), quality=95, subsampling="4:4:4"),
         "turned", is_turned=True),
    Case("HEIC of a phone, turned", HEIC.read_bytes, "turned", is_turned=True),
    Case("TIFF with floating point values", lambda: file_of(Image.new("F", (8, 8)), "TIFF"), "refused", f"{MODES} F",
         None),
    Case("TIFF in CIELAB", lambda: file_of(Image.new("LAB", (8, 8)), "TIFF"), "refused", f"{MODES} LAB", None),
    Case("PNG, cut off", lambda: _noise("PNG"), "refused", f"the PNG {BROKEN}", None),
    Case("JPEG, cut off", lambda: _noise("JPEG"), "refused", f"the JPEG {BROKEN}", None),
    Case("WebP, cut off", lambda: _noise("WEBP"), "refused", f"the WebP {BROKEN}", None),
    Case("PNG of 400 megapixels in 1 kB", lambda: png_16(1, 0, side=20_000), "refused by its header",
         "must have at most 16777216 pixels, got 20000x20000", None),
    Case("an empty file", bytes, "refused", "the file is empty", None),
    Case("text", lambda: b"hello, world", "refused",
         f"{KINDS} file of an unknown kind that begins with 68 65 6c 6c 6f 2c 20 77", None),
    Case("PDF", lambda: b"%PDF-1.7\n", "refused", f"{KINDS} PDF file", None),
    Case("SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "refused", f"{KINDS} SVG or HTML file", None),
    Case("JPEG 2000", lambda: file_of(halves(), "JPEG2000"), "refused", f"{KINDS} JPEG 2000 file", None),
    Case("JPEG XL", lambda: b"\0\0\0\x0cJXL \r\n\x87\n", "refused", f"{KINDS} JPEG XL file", None),
    Case("a video as an image", lambda: video_file("mp4"), "refused", f"{KINDS} MP4 or QuickTime file", None),
    Case("MP4", lambda: video_file("mp4", frames=9), "read", is_video=True),
    Case("MP4, longer than what is made", lambda: video_file("mp4"), "the first frames are used",
         "the first 9 of its 10 frames were used", is_video=True),
    Case("MP4 of a phone, turned", lambda: video_file("mp4", rotation=90, frames=9), "turned", is_turned=True,
         is_video=True),
    Case("QuickTime", lambda: video_file("mov", frames=9), "read", is_video=True),
    Case("WebM, VP9", lambda: video_file("webm", "libvpx-vp9", frames=9), "read", is_video=True),
    Case("Matroska", lambda: video_file("matroska", frames=9), "read", is_video=True),
    Case("MP4 with too few frames", lambda: video_file("mp4", frames=3), "refused",
         "must have at least 5 frames, got 3", None, is_video=True),
    Case("MP4, cut off", lambda: video_file("mp4")[:700], "refused", f"the MP4 or QuickTime {BROKEN}", None,
         is_video=True),
    Case("MP4 with sound alone", _mp4_with_sound_alone, "refused", f"the MP4 or QuickTime {BROKEN}", None,
         is_video=True),
    Case("an image as a video", lambda: file_of(halves(), "PNG"), "refused",
         "must be MP4 or QuickTime or WebM or Matroska, got PNG", None, is_video=True),
)  # fmt: skip


def table() -> str:
    """Markdown: each file, what becomes of it, and what the caller is told."""
    lines = ["| file | what becomes of it | what is said |", "|" + " --- |" * 3]
    return "\n".join([*lines, *(f"| {case.name} | {case.done} | {case.says} |" for case in CASES)])


if __name__ == "__main__":
    print(table())
