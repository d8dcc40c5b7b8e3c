from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.formats import IMAGES
from app.worker.outputs.encode import METADATA_MAX_CHARS, encode, thumbnail
from tests.pictures import read_back

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("output_format", IMAGES)
def test_each_format_reads_back(output_format: str) -> None:
    read = Image.open(io.BytesIO(encode(PICTURE, output_format, 90)))
    assert (read.get_format_mimetype(), read.size, read.mode) == (IMAGES[output_format], (48, 32), "RGB")


def test_png_loses_nothing() -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(PICTURE, "png", 0)))), np.asarray(PICTURE))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_compression_100_keeps_most(output_format: str) -> None:
    sizes = [len(encode(PICTURE, output_format, each)) for each in (0, 50, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


SAID = '{"prompt": "é 漢 😀 \\" "}'


@pytest.mark.parametrize("output_format", IMAGES)
@pytest.mark.parametrize("said", [SAID, "😀" * METADATA_MAX_CHARS])
def test_metadata_reads_back_and_changes_no_pixel(output_format: str, said: str) -> None:
    with_it, without = encode(PICTURE, output_format, 90, said), encode(PICTURE, output_format, 90)
    assert (read_back(with_it), read_back(without)) == (said, None)
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(each))) for each in (with_it, without)))  # type: ignore[arg-type]


def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape() -> None:
    small = Image.open(io.BytesIO(thumbnail(PICTURE.resize((1920, 1080)))))
    assert (small.format, small.size) == ("JPEG", (512, 288))
    assert Image.open(io.BytesIO(thumbnail(PICTURE))).size == PICTURE.size
