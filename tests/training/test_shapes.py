from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.shapes.judge import read
from training.shapes.world import COLORS, SHAPES, Caption, Scenes


def to_bytes(pictures: Any) -> Any:
    return ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def scenes() -> Any:
    return Scenes.sample(200, torch.Generator().manual_seed(0))


def test_the_judge_reads_back_what_was_drawn(scenes: Any) -> None:
    captions = scenes.captions(torch.Generator(), drop=0.0)
    readings = list(read(to_bytes(scenes.render())))
    assert all(reading.shows(caption) and reading.clean for reading, caption in zip(readings, captions, strict=True))


def test_a_caption_that_leaves_attributes_free_is_shown_by_any(scenes: Any) -> None:
    reading = next(read(to_bytes(scenes.render()[:1])))
    assert reading.shows(Caption())
    assert reading.shows(Caption(color=reading.color))
    assert not reading.shows(Caption(color=next(c for c in COLORS if c != reading.color)))
    assert not reading.shows(Caption(shape=next(s for s in SHAPES if s != reading.shape)))


@pytest.mark.parametrize("spoil", ["noise", "second object", "two colours", "blob", "nothing"])
def test_a_spoilt_picture_is_not_clean(scenes: Any, spoil: str) -> None:
    picture = to_bytes(scenes.render()[:1]).copy()
    if spoil == "noise":
        picture = np.clip(picture + np.random.default_rng(0).normal(0, 60, picture.shape), 0, 255).astype(np.uint8)
    elif spoil == "second object":
        picture[:, 52:62, 52:62] = picture[:, 4:5, 4:5] ^ 255
    elif spoil == "two colours":
        picture[:, 32:] = np.where(
            (picture[:, 32:] != picture[:, :1, :1]).any(-1, keepdims=True), [[[[10, 90, 200]]]], picture[:, 32:]
        )
    elif spoil == "blob":
        y, x = np.mgrid[:64, :64]
        radius = 14 + 5 * np.sin(5 * np.arctan2(y - 32, x - 32))
        picture[:] = 250
        picture[0, np.hypot(y - 32, x - 32) < radius] = (220, 30, 30)
    else:
        picture[:] = 250
    assert not next(read(picture)).clean


@pytest.mark.parametrize(
    "text", ["a shape", "a small red circle on a white background", "a purple shape", "a triangle on a gray background"]
)
def test_a_caption_is_read_back_as_written(text: str) -> None:
    assert str(Caption.parse(text)) == text


@pytest.mark.parametrize("text", ["a pink shape", "a red blue circle"])
def test_a_caption_outside_the_world_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"pink|twice"):
        Caption.parse(text)


def test_a_batch_is_drawn_from_its_generator_alone() -> None:
    first, second = (Scenes.sample(4, torch.Generator().manual_seed(3)).render() for _ in range(2))
    assert torch.equal(first, second)
