"""Identifies image files by their first bytes and opens those that Pillow reads, without decoding their pixels."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from zlib import crc32

from pi_heif.as_plugin import HeifImageFile
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

__all__ = ["READABLE", "VIDEO_KINDS", "identify", "open_header"]

#: The first pattern that matches names the kind.
SIGNATURES: Mapping[str, re.Pattern[bytes]] = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "JPEG": rb"\xff\xd8\xff",
        "WebP": rb"RIFF.{4}WEBP",
        "GIF": rb"GIF8[79]a",
        "BMP": rb"BM",
        "TIFF": rb"II[*+]\0|MM\0[*+]",
        "AVIF": rb".{4}ftyp(avi[fs]|mi[fm]1.{,48}avif|msf1.{,48}avis)",
        "HEIC": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
        "MP4 or QuickTime": rb".{4}ftyp",
        "WebM or Matroska": rb"\x1a\x45\xdf\xa3",
        "PDF": rb"%PDF",
        "SVG or HTML": rb"(\xef\xbb\xbf)?\s*<[?!a-zA-Z]",
        "PSD": rb"8BPS",
        "ICO": rb"\0\0[\x01\x02]\0",
        "OpenEXR": rb"v/1\x01",
        "ZIP": rb"PK\x03\x04",
    }.items()
}
SIGNATURE_BYTES = 80
#: The kinds that are videos.
VIDEO_KINDS = ("MP4 or QuickTime", "WebM or Matroska")
#: A PNG chunk that says what pixels look like, and one that is used only if its checksum is right. The others that
#: are not critical are metadata.
PIXEL_CHUNKS = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
CHECKED_CHUNKS = frozenset({b"iCCP", b"eXIf"})
EXIF_ITEM = re.compile(rb"(infe.{8}(?:..)?)Exif", re.DOTALL)

# Of metadata that it cannot read, Pillow warns on standard error. Whoever uploads a file could fill the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Pillow bounds a colour profile by this number; profiles of scanners and presses exceed its own, 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 4 * 2**20


def identify(data: bytes) -> str | None:
    """Returns the name of the file's kind, or None for an unknown one."""
    head = data[:SIGNATURE_BYTES]
    return next((name for name, pattern in SIGNATURES.items() if pattern.match(head)), None)


def open_header(kind: str, data: bytes) -> ImageFile.ImageFile:
    """Reads the header of a file of a kind in READABLE.

    Of a JPEG with several images (MPO) this is the first one, the photo. Raises whatever Pillow raises for a broken
    file.
    """
    return READABLE[kind](data)


def _png(data: bytes) -> ImageFile.ImageFile:
    file = PngImagePlugin.PngImageFile(io.BytesIO(_png_without_metadata(data)))
    key = file.info.get("transparency")
    if data[24] == 16 and key is not None:  # bits per channel; Pillow reduces the pixels to 8 and leaves the key
        file.info["transparency"] = tuple(value >> 8 for value in key) if isinstance(key, tuple) else key >> 8
    return file


def _avif(data: bytes) -> ImageFile.ImageFile:
    """Opens an AVIF without its EXIF, which libavif checks; its orientation is a property of its own."""
    return AvifImagePlugin.AvifImageFile(io.BytesIO(EXIF_ITEM.sub(rb"\1skip", data, count=1)))


def _plain(image_file: Callable[[io.BytesIO], ImageFile.ImageFile]) -> Callable[[bytes], ImageFile.ImageFile]:
    return lambda data: image_file(io.BytesIO(data))


#: The kinds that are read. Pillow's classes are called by name: `Image.open` would try others and read the
#: multi-picture index of a JPEG.
READABLE: Mapping[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "PNG": _png,
    "JPEG": _plain(JpegImagePlugin.JpegImageFile),
    "WebP": _plain(WebPImagePlugin.WebPImageFile),
    "GIF": _plain(GifImagePlugin.GifImageFile),
    "BMP": _plain(BmpImagePlugin.BmpImageFile),
    "TIFF": _plain(TiffImagePlugin.TiffImageFile),
    "AVIF": _avif,
    "HEIC": _plain(HeifImageFile),
}


def _png_without_metadata(data: bytes) -> bytes:
    """Removes chunks that do not change pixels, such as text and dates, and broken colour profiles and EXIF.

    EXIF may stand at the end; here it stands before the pixels, so that they need not be decoded to find it.
    """
    view, start = memoryview(data), 33  # after the signature and IHDR
    checked, kept = list[memoryview](), list[memoryview]()
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        name = bytes(view[start + 4 : start + 8])
        is_critical = not name[0] & 0x20
        if is_critical or name in PIXEL_CHUNKS:
            kept.append(view[start:end])
        elif name in CHECKED_CHUNKS and _is_sound(view[start + 4 : end]):
            checked.append(view[start:end])
        start = end
    return b"".join((view[:33], *checked, *kept))


def _is_sound(chunk: memoryview) -> bool:
    return crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")
