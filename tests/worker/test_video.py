from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.worker.outputs import video as writing
from app.worker.outputs.video import can_write
from tests.videos import boxes, psnr_db, read

BT709 = 1
COLORS = ((220, 30, 30), (30, 200, 40), (40, 50, 210), (240, 220, 40))


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A quarter of each colour, and a white square that moves a pixel a frame."""
    picture = np.zeros((count, height, width, 3), np.uint8)
    half = height // 2, width // 2
    for i, color in enumerate(COLORS):
        picture[:, i // 2 * half[0] : (i // 2 + 1) * half[0], i % 2 * half[1] : (i % 2 + 1) * half[1]] = color
    for i in range(count):
        picture[i, 8:24, 4 + i : 20 + i] = 255
    return picture


def encode_mp4(asked: np.ndarray, fps: int, *more: Any) -> bytes:
    with writing.encode_mp4(asked, fps, *more) as file:
        return file.read()


def skip_without(codec: str) -> None:
    if not can_write(codec):
        pytest.skip(f"this FFmpeg has no encoder for {codec}")


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize(("count", "fps"), [(17, 16), (1, 24), (33, 30), (5, 7)])
def test_every_frame_in_its_time_and_colour(count: int, fps: int, codec: str) -> None:
    skip_without(codec)
    asked = frames(count)
    video = read(encode_mp4(asked, fps, codec))
    assert (video.codec, video.pix_fmt, video.fps) == (codec, "yuv420p", fps)
    assert video.color == (1, BT709, BT709, BT709)
    assert video.frames.shape == asked.shape
    assert video.shown_at_s == [Fraction(i, fps) for i in range(count)]
    assert video.duration_s == Fraction(count, fps)
    assert psnr_db(video.frames, asked) > 28  # the colour of 2x2 pixels is one, which costs at edges
    for y, x in ((40, 4), (4, 60), (40, 60)):
        assert np.abs(video.frames[:, y, x].astype(int) - asked[:, y, x]).max() < 8


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_it_plays_while_it_loads(codec: str) -> None:
    skip_without(codec)
    names = boxes(encode_mp4(frames(5), 16, codec))
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_same_frames_are_the_same_bytes(codec: str) -> None:
    skip_without(codec)
    random = np.random.default_rng(0)
    patches = random.integers(100, 150, (13, 48, 64, 3), dtype=np.uint8).repeat(5, axis=1).repeat(5, axis=2)
    noise = patches + random.integers(0, 4, patches.shape, dtype=np.uint8)
    assert len({encode_mp4(noise, 16, codec) for _ in range(5)}) == 1


def test_an_odd_size_is_refused() -> None:
    with pytest.raises(AssertionError, match="2x2"):
        encode_mp4(frames(2)[:, :47], 16)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_its_comment_is_what_was_said_and_changes_no_pixel(codec: str) -> None:
    skip_without(codec)
    said = '{"prompt": "é 漢 😀 \\" "}' * 500
    with_it, without = read(encode_mp4(frames(9), 16, codec, said)), read(encode_mp4(frames(9), 16, codec))
    assert (with_it.comment, without.comment) == (said, None)
    assert np.array_equal(with_it.frames, without.frames)


def test_the_file_is_open_and_nowhere_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with writing.encode_mp4(frames(3), 16) as file:
        assert not list(tmp_path.iterdir())
        assert file.read(8)[4:] == b"ftyp"


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="threads have no scheduling policy here")
def test_writing_leaves_the_thread_as_it_was() -> None:
    skip_without("av1")
    encode_mp4(frames(3), 16, "av1")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def tones(seconds: float, rate: int, channels: int) -> np.ndarray:
    """A tone of its own for each channel."""
    times = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (i + 1) * times) for i in range(channels)]).astype(np.float32)


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 2), (48_000, 1)])
@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_sound_is_heard_beside_the_frames_and_as_long(codec: str, seconds: float, rate: int, channels: int) -> None:
    skip_without(codec)
    sent = tones(seconds, rate, channels)
    video = read(encode_mp4(frames(24), 24, codec, None, writing.Sound(sent, rate)))
    assert np.array_equal(video.frames, read(encode_mp4(frames(24), 24, codec)).frames)
    assert (video.duration_s, video.shown_at_s[-1]) == (1, Fraction(23, 24))
    assert video.sound is not None
    heard, heard_rate = video.sound
    assert (heard_rate, len(heard)) == (rate, channels)
    assert rate <= heard.shape[1] < rate + 2048  # whole frames of AAC
    sounding = min(rate, sent.shape[1]) - rate // 20
    for before, after in zip(sent, heard, strict=True):
        assert np.corrcoef(before[:sounding], after[:sounding])[0, 1] > 0.99
    assert np.abs(heard[:, sent.shape[1] + 2048 :]).max(initial=0) < 0.01


def test_a_video_without_sound_has_no_track_of_it() -> None:
    assert read(encode_mp4(frames(3), 16)).sound is None


def test_the_same_sound_is_the_same_bytes() -> None:
    sound = writing.Sound(tones(1, 24_000, 2), 24_000)
    assert len({encode_mp4(frames(24), 24, "h264", None, sound) for _ in range(3)}) == 1
