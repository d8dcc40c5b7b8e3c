from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from app import demo


def drawn(color: str, background: str) -> Image.Image:
    picture = Image.new("RGB", (64, 64), background)
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=color)
    return picture


@pytest.mark.parametrize("background", ["#fafafa", "#0a0a0a", "#858585"])
def test_red_is_told_from_every_other_colour(background: str) -> None:
    assert demo.is_red(drawn("#db1f1f", background))
    for other in ("#1fa640", "#214de0", "#f5d61f", "#8c2eb3", "#fa8714"):
        assert not demo.is_red(drawn(other, background))


def test_an_empty_picture_is_not_red() -> None:
    assert not demo.is_red(Image.new("RGB", (64, 64), "red"))


@pytest.fixture
def signals_kept() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signals_kept: None
) -> None:
    monkeypatch.setattr(demo, "SEEDS_SCANNED_MAX", demo.SEEDS_A_REQUEST)
    assert demo.main(tmp_path / "demo" / "comparison.png") == 0
    with Image.open(tmp_path / "demo" / "comparison.png") as picture:
        assert picture.width > demo.SEEDS_SHOWN * 64 * demo.UPSCALE
        assert picture.height > 2 * 64 * demo.UPSCALE
    said = capsys.readouterr().out
    assert said.count("yes") == demo.SEEDS_SHOWN
    assert "are red without guidance" in said
