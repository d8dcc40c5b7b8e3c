"""What a method's images are worth: four axes, always read together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.suppression.pairs import Pair
from training.shapes.judge import Reading

__all__ = ["Score", "interval", "percent", "score"]

ATTRIBUTES = ("size", "color", "shape", "background", "motion")


@dataclass(frozen=True)
class Score:
    """Shares of `count` images, each in [0, 1]; diversity in bits."""

    count: int
    #: Not showing what the negative prompt names.
    absent: float
    #: Showing everything the prompt names.
    kept: float
    #: One well-drawn object on an even background.
    clean: float
    #: Entropy of an attribute that the prompt leaves free, over the seeds of one pair; mean over attributes and pairs.
    diversity: float


def score(asked: Sequence[Pair], readings: Sequence[Reading]) -> Score:
    by_pair: dict[Pair, list[Reading]] = defaultdict(list)
    for pair, reading in zip(asked, readings, strict=True):
        by_pair[pair].append(reading)
    read = [
        attribute for attribute in ATTRIBUTES if any(getattr(reading, attribute) is not None for reading in readings)
    ]
    entropies = [
        _entropy([getattr(reading, attribute) for reading in seen])
        for pair, seen in by_pair.items()
        for attribute in read
        if getattr(pair.prompt, attribute) is None
    ]
    count = len(asked)
    return Score(
        count,
        absent=sum(not r.shows(pair.negative) for pair, r in zip(asked, readings, strict=True)) / count,
        kept=sum(r.shows(pair.prompt) for pair, r in zip(asked, readings, strict=True)) / count,
        clean=sum(r.clean for r in readings) / count,
        diversity=sum(entropies) / len(entropies),
    )


def interval(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % Wilson interval of a share."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def percent(share: float, count: int) -> str:
    """Returns a share as a table has it: in percent, with its interval."""
    low, high = interval(share, count)
    return f"{100 * share:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _entropy(values: Sequence[str | None]) -> float:
    return sum(-n / len(values) * math.log2(n / len(values)) for n in Counter(values).values())
