"""What becomes of an uploaded image, whatever kind of file it is."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageChops, ImageOps, PngImagePlugin

from app.api.inputs.images import UploadedImage
from app.errors import InvalidParameter
from tests.api.input_files import (
    BLUE,
    GRAY,
    HEIC,
    RED,
    XMP,
    chunk,
    file_of,
    halves,
    png_16,
    png_with,
    turned,
)
from tests.icc import cmyk_with_green_cyan, display_p3

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*")  # as in the API


def upload(data: bytes) -> UploadedImage:
    return UploadedImage("image", data, max_px=2**20, max_bytes=2**22)


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidParameter) as refused:
        upload(data).fit(8, 8)
    assert refused.value.param == "image"
    return str(refused.value)


def near(image: Image.Image, at: tuple[int, int], color: tuple[int, ...], tolerance: int = 12) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(got - expected) <= tolerance for got, expected in zip(pixel, color, strict=True))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
def test_each_kind_that_pillow_reads(kind: str, options: dict[str, Any]) -> None:
    image = upload(file_of(halves(), kind, **options))
    assert image.size == (64, 32)
    assert not image.has_transparency
    fitted = image.fit(64, 32)
    assert (fitted.mode, fitted.size, image.warnings) == ("RGB", (64, 32), [])
    assert near(fitted, (8, 16), RED)
    assert near(fitted, (56, 16), BLUE)


def test_a_heic_photo_is_upright() -> None:
    image = upload(HEIC.read_bytes())
    assert image.size == (32, 64)
    fitted = image.fit(32, 64)
    assert near(fitted, (16, 8), RED)
    assert near(fitted, (16, 56), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_each_mode(mode: str) -> None:
    image = halves(mode)
    fitted = upload(file_of(image, "TIFF" if mode == "CMYK" else "PNG")).fit(64, 32)
    assert ImageChops.difference(fitted, image.convert("RGB")).getbbox() is None


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "the file is empty"),
        (b"hello, world", "got a file of an unknown kind that begins with 68 65 6c 6c"),
        (b"%PDF-1.7\n", "got a PDF file"),
        (b"\xef\xbb\xbf <svg xmlns='http://www.w3.org/2000/svg'/>", "got a SVG or HTML file"),
        (b"8BPS\0\1", "got a PSD file"),
        (b"PK\3\4\x14\0", "got a ZIP file"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "got a MP4 or QuickTime file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "got a JPEG XL file"),
        (file_of(halves(), "JPEG2000"), "got a JPEG 2000 file"),
        (file_of(halves(), "ICO"), "got a ICO file"),
        (file_of(Image.new("F", (8, 8)), "TIFF"), "with 8 or 16 bits per channel, got the mode F"),
        (file_of(Image.new("LAB", (8, 8)), "TIFF"), "got the mode LAB"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(data: bytes, name: str) -> None:
    assert name in refusal(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_file_that_ends_early_is_refused_by_its_kind(kind: str) -> None:
    data = file_of(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    name = "WebP" if kind == "WEBP" else kind
    for length in (len(data) // 2, 24):
        assert refusal(data[:length]) == f"image: the {name} file is broken or incomplete; send the whole file"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_too_many_pixels_are_refused_by_the_header(kind: str) -> None:
    data = file_of(Image.new("L", (1100, 1000)), kind)
    assert "must have at most 1048576 pixels, got 1100x1000" in refusal(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    drawn = Image.new("RGB", (192, 96), RED)
    drawn.paste(BLUE, (0, 0, 128, 32))
    drawn.paste((0, 255, 0), (160, 64, 192, 96))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = file_of(drawn, kind, exif=exif, **({"quality": 95} if kind != "TIFF" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = upload(data)
    assert image.size == upright.size
    for size in (upright.size, (24, 40)):
        difference = ImageChops.difference(image.fit(*size), ImageOps.fit(upright, size, Image.Resampling.LANCZOS))
        assert max(high for _, high in difference.resize((8, 8)).getextrema()) < 8  # type: ignore[misc]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"II*\0\x08\0\0\0\x05\0", b"MM\0*\xff\xff\xff\xff", b""])
def test_broken_metadata_makes_no_image_unreadable(exif: bytes) -> None:
    jpeg = file_of(halves(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    described = Image.Exif()
    described[ExifTags.Base.ImageDescription] = "a logo"
    avif = file_of(halves(), "AVIF", exif=described)
    start = avif.index(b"MM\0*")
    avif = avif[:start] + (exif + bytes(8))[:8] + avif[start + 8 :]
    for data in (
        png_with(chunk(b"eXIf", exif)),
        png_with(chunk(b"eXIf", exif, checksum=0)),
        png_with(chunk(b"iCCP", exif, checksum=0)),
        png_with(chunk(b"iCCP", b"name\0\0" + exif)),
        png_with(chunk(b"zTXt", exif)),
        png_with(chunk(b"tEXt", exif, checksum=0)),
        png_with(chunk(b"gAMA", exif)),
        jpeg[:2] + segment + jpeg[2:],
        file_of(halves(), "WEBP", exif=exif),
        avif,
    ):
        image = upload(data)
        assert (image.size, image.fit(64, 32).size) == ((64, 32), (64, 32))


def test_large_text_in_a_png_is_left_unread() -> None:
    text = zlib.compress(b"a" * 20_000_000)
    assert upload(png_with(chunk(b"zTXt", b"workflow\0\0" + text))).fit(64, 32)


def test_exif_at_the_end_of_a_png_is_read() -> None:
    assert upload(png_with(chunk(b"eXIf", turned(6)[6:]), last=True)).size == (32, 64)


def test_xmp_turns_nothing() -> None:
    """As browsers show it."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP)
    for data in (file_of(halves(), "PNG", pnginfo=text), file_of(halves(), "JPEG", xmp=XMP.encode())):
        assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (32, 64)  # Pillow turns it
        assert upload(data).size == (64, 32)


def test_of_a_phones_photo_with_several_images_the_first_is_read() -> None:
    depth = Image.new("L", (16, 16))
    image = upload(file_of(halves(), "MPO", save_all=True, append_images=[depth, depth], quality=95))
    assert near(image.fit(64, 32), (8, 16), RED)
    assert image.warnings == []


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_used_and_that_is_said(kind: str) -> None:
    image = upload(file_of(halves(), kind, save_all=True, append_images=[Image.new("RGB", (64, 32), "lime")]))
    assert near(image.fit(64, 32), (8, 16), RED, 40)
    name = "WebP" if kind == "WEBP" else kind
    assert image.warnings == [f"image: the {name} file has several frames; only the first was used"]


def test_16_bits_are_read_alike_in_gray_and_in_colour() -> None:
    gray_tiff = file_of(Image.new("I;16", (8, 8), 0xABCD), "TIFF")
    for data in (png_16(1, 0xABCD), png_16(3, 0xABCD, 0xABCD, 0xABCD), gray_tiff):
        image = upload(data)
        assert image.fit(8, 8).getpixel((0, 0)) == (0xAB, 0xAB, 0xAB)
        assert image.warnings == ["image: 16 bits per channel were reduced to 8"]


def test_a_transparent_colour_of_16_bits() -> None:
    for data in (
        png_16(1, 0x0A14, key=struct.pack(">H", 0x0A14)),
        png_16(3, 0x0A14, 1, 2, key=struct.pack(">3H", 0x0A14, 1, 2)),
    ):
        assert upload(data).has_transparency


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 100}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_a_colour_profile_is_converted_to_srgb(kind: str, options: dict[str, Any]) -> None:
    plain = Image.new("RGB", (16, 16), (200, 50, 50))
    image = upload(file_of(plain, kind, icc_profile=display_p3(), **options))
    assert near(image.fit(8, 8), (4, 4), (218, 24, 40), 3)
    assert image.warnings == []
    transparent = plain.convert("RGBA")
    transparent.putalpha(77)
    fitted = upload(file_of(transparent, "PNG", icc_profile=display_p3())).fit(8, 8)
    assert near(fitted, (4, 4), (218, 24, 40), 3)


def test_a_profile_of_colours_on_a_gray_image() -> None:
    assert near(
        upload(file_of(Image.new("L", (8, 8), 99), "JPEG", icc_profile=display_p3())).fit(8, 8), (4, 4), (99,) * 3, 2
    )


def test_cmyk_is_converted_by_its_profile() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    by_profile = upload(file_of(cyan, "JPEG", quality=100, icc_profile=cmyk_with_green_cyan()))
    assert near(by_profile.fit(8, 8), (4, 4), (0, 207, 0))
    assert by_profile.warnings == []
    plain = upload(file_of(cyan, "JPEG", quality=100))
    assert near(plain.fit(8, 8), (4, 4), (0, 255, 255))
    assert plain.warnings == ["image: CMYK without a colour profile; the colours are approximate"]


@pytest.mark.parametrize("profile", [b"no profile", cmyk_with_green_cyan(), display_p3()[:300]])
def test_a_profile_that_does_not_fit_is_ignored_and_that_is_said(profile: bytes) -> None:
    image = upload(file_of(halves(), "PNG", icc_profile=profile))
    assert near(image.fit(64, 32), (8, 16), RED, 0)
    assert image.warnings == ["image: the colour profile was ignored: it does not fit the image"]


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("size", [(64, 32), (32, 16)])
def test_a_hidden_colour_does_not_show(size: tuple[int, int], alpha: int) -> None:
    fitted = []
    for hidden in ("black", "white", "lime"):
        logo = Image.new("RGBA", (64, 32), hidden)
        logo.putalpha(alpha)
        logo.paste((*RED, 255), (0, 0, 32, 32))
        image = upload(file_of(logo, "PNG"))
        assert image.has_transparency
        fitted.append(image.fit(*size))
        assert near(fitted[-1], (size[0] - 4, 4), GRAY, 5 * alpha)
        assert near(fitted[-1], (4, 4), RED, 0)
        alphas = image.fit_alpha(*size)
        assert (alphas.getpixel((4, 4)), alphas.getpixel((size[0] - 4, 4))) == (255, alpha)
    for other in fitted[1:]:
        extrema: Any = ImageChops.difference(fitted[0], other).getextrema()
        assert max(high for _, high in extrema) <= 8 * alpha


def test_the_edge_of_a_logo_keeps_its_colour() -> None:
    """Half covered pixels show the logo's colour in full: their share is in the alpha channel."""
    logo = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    logo.paste((*RED, 255), (0, 0, 33, 64))
    image = upload(file_of(logo, "PNG"))
    fitted, alpha = image.fit(32, 32), image.fit_alpha(32, 32)
    edge = alpha.getpixel((16, 16))
    assert isinstance(edge, int)
    assert 0 < edge < 255
    assert near(fitted, (16, 16), RED, 4)


def test_what_is_almost_opaque_is_opaque() -> None:
    image = halves("RGBA")
    image.putalpha(254)
    assert not upload(file_of(image, "PNG")).has_transparency
