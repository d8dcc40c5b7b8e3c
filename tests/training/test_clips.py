from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.shapes.clips import FRAMES, Clips
from training.shapes.track import read_clips
from training.shapes.world import MOTIONS, Caption


@pytest.fixture(scope="module")
def clips() -> Any:
    return Clips.sample(40, torch.Generator().manual_seed(0))


def to_bytes(clips: Any) -> Any:
    return ((clips + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


def test_the_judge_reads_back_what_was_drawn(clips: Any) -> None:
    captions = clips.captions(torch.Generator(), drop=0.0)
    assert {caption.motion for caption in captions} == set(MOTIONS)
    drawn = to_bytes(clips.render())
    assert drawn.shape[1] == FRAMES
    readings = list(read_clips(drawn))
    assert all(reading.shows(caption) and reading.clean for reading, caption in zip(readings, captions, strict=True))


def test_a_clip_played_backwards_goes_the_other_way(clips: Any) -> None:
    opposite = dict(zip(MOTIONS, ("still", "right", "left", "down", "up"), strict=True))
    forwards = [caption.motion for caption in clips.captions(torch.Generator(), drop=0.0)]  # which the judge reads
    backwards = [reading.motion for reading in read_clips(to_bytes(clips.render())[:, ::-1])]
    assert backwards == [opposite[str(motion)] for motion in forwards]


@pytest.mark.parametrize("spoil", ["frames of another", "noise", "slow", "gone"])
def test_a_spoilt_clip_is_not_clean(clips: Any, spoil: str) -> None:
    moving = int(np.flatnonzero(clips.motion.numpy() == 1)[0])
    clip = to_bytes(clips.render())[moving : moving + 1].copy()
    if spoil == "frames of another":
        clip[:, 8:] = np.roll(clip[:, 8:], 1, axis=-1)
    elif spoil == "noise":
        clip = np.clip(clip + np.random.default_rng(0).normal(0, 60, clip.shape), 0, 255).astype(np.uint8)
    elif spoil == "slow":
        clip[:, 6:] = clip[:, 5:6]
    else:
        clip[:, 5] = clip[:, 5, :1, :1]
    assert not next(read_clips(clip)).clean


@pytest.mark.parametrize("text", ["a shape moving left", "a small red circle on a white background standing still"])
def test_a_caption_of_motion_is_read_back_as_written(text: str) -> None:
    assert str(Caption.parse(text)) == text
