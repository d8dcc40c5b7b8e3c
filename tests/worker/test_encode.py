from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.formats import IMAGES
from app.worker.encode import encode

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
