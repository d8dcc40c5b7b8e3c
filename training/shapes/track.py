"""Reads a clip back from its pixels: what its frames show, and which way the object went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.shapes.judge import Reading, read
from training.shapes.world import MOTIONS

__all__ = ["read_clips"]

#: A standing object stays this close to its first place, in pixels of a 64-pixel clip (a moving one travels 16).
STILL_PX = 3.0
#: A moving one goes at least this far along one axis, and
MOVED_PX = 8.0
#: at most this share of it along the other.
ASTRAY = 0.35
#: This share of a clean clip's frames is clean and shows the same; the others may blur.
CLEAN_FRAMES = 0.85
_ATTRIBUTES = ("size", "color", "shape", "background")


def read_clips(clips: NDArray[np.uint8]) -> Iterator[Reading]:
    """Yields one Reading per clip, its motion included. clips: (B, F, H, W, 3), 8-bit sRGB."""
    for clip in clips:
        yield _read_clip(list(read(clip)), scale=clip.shape[2] / 64)


def _read_clip(frames: Sequence[Reading], scale: float) -> Reading:
    enough = CLEAN_FRAMES * len(frames)
    seen = {name: Counter(getattr(each, name) for each in frames).most_common(1)[0] for name in _ATTRIBUTES}
    motion = _motion([each.place for each in frames], scale)
    clean = (
        motion is not None
        and sum(each.clean for each in frames) >= enough
        and all(count >= enough for _, count in seen.values())
    )
    values = {name: value for name, (value, _) in seen.items()}
    return Reading(**values, clean=clean, place=frames[0].place, motion=motion)


def _motion(places: Sequence[tuple[float, float] | None], scale: float) -> str | None:
    """Returns the name of the way from the first place to the last; None if it has no name or the object was lost."""
    path = np.array([place for place in places if place is not None])
    if len(path) < len(places):
        return None
    if np.abs(path - path[0]).max() <= STILL_PX * scale:
        return MOTIONS[0]
    across, down = path[-1] - path[0]
    far, near = max(abs(across), abs(down)), min(abs(across), abs(down))
    if far < MOVED_PX * scale or near > ASTRAY * far:
        return None
    if far == abs(across):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"
