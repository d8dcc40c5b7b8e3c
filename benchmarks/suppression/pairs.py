"""The pairs of prompt and negative that every method is asked for: half to tune on, half held out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from training.shapes.world import Caption

__all__ = ["Pair", "Split", "pairs"]

Split = Literal["tune", "held-out"]
FILE = Path(__file__).with_name("pairs.csv")


@dataclass(frozen=True)
class Pair:
    """A prompt and what must not be seen; it speaks of attributes that the prompt leaves free."""

    prompt: Caption
    negative: Caption


def pairs(split: Split, *, clips: bool) -> Sequence[Pair]:
    """Returns the pairs of one half; those that speak of motion for clips alone. Raises ValueError for a line out of
    place.
    """
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        pair = Pair(Caption.parse(row["prompt"]), Caption.parse(row["negative"]))
        if row["split"] not in get_args(Split):
            raise ValueError(f"{row['split']!r} is no half of {FILE.name}")
        if row["split"] == split and (clips or not _of_motion(pair)):
            found.append(pair)
    return found


def _of_motion(pair: Pair) -> bool:
    return pair.prompt.motion is not None or pair.negative.motion is not None
