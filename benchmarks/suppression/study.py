"""Which cells are read, and their scores kept on disk so that a broken run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.suppression.methods import FAMILIES, NAG, NONE, Method
from benchmarks.suppression.pairs import Pair, Split, pairs
from benchmarks.suppression.score import Score, score
from benchmarks.suppression.subject import Subject
from training.shapes.judge import Reading

__all__ = ["STEPS", "Cell", "Study"]

STEPS = (1, 2, 4, 8, 25)
#: What is read at the steps that the model was not made for.
ELSEWHERE = (
    NONE,
    Method("CFG", 2.0),
    Method("CFG", 5.0),
    NAG,
    Method("NAG", 5.0, 0.5, first=0.5),
    Method("NAG", 5.0, 0.5, end=0.5, scale_decay=1.0),
    Method("NAG without normalization", 5.0),
    Method("NAG without refinement", 3.0, 1.0),
)


@dataclass(frozen=True)
class Cell:
    """One method at one number of steps over one half of the pairs."""

    steps: int
    split: Split
    method: Method

    @property
    def key(self) -> str:
        return f"{self.steps} steps, {self.split}: {self.method.label}"


class Study:
    """All cells of a model, `seeds` images each, spread evenly over the pairs."""

    def __init__(self, subject: Subject, seeds: int, store: Path) -> None:
        self.subject = subject
        self.seeds = seeds
        self._store = store
        self._scores: dict[str, Score] = {}
        if store.exists():
            kept = json.loads(store.read_text())
            if kept["seeds"] == seeds:
                # Earlier tables call a decaying scale annealed.
                self._scores = {
                    key.replace("annealed", "decayed"): Score(**values) for key, values in kept["scores"].items()
                }

    def cells(self) -> Iterator[Cell]:
        everything = [method for family in FAMILIES.values() for method in family]
        for method in everything:
            yield Cell(self.subject.steps, "held-out", method)
        # What a setting is chosen by. The rivals need none: the best that they do on the other half is theirs.
        for method in everything:
            if method.name.startswith(("none", "NAG")):
                yield Cell(self.subject.steps, "tune", method)
        for steps in STEPS:
            if steps != self.subject.steps:
                for method in ELSEWHERE:
                    yield Cell(steps, "held-out", method)

    def run(self, cells: Sequence[Cell]) -> None:
        """Reads the cells that no earlier run has read."""
        missing = [cell for cell in cells if cell.key not in self._scores]
        with tqdm(total=len(missing) * self.seeds, unit="image", desc=self.subject.name) as bar:
            for cell in missing:
                bar.set_postfix_str(cell.key)
                self._scores[cell.key] = self._read(cell, bar)
                self._store.parent.mkdir(parents=True, exist_ok=True)
                kept = {key: asdict(each) for key, each in self._scores.items()}
                self._store.write_text(json.dumps({"seeds": self.seeds, "scores": kept}, indent=1) + "\n")

    def score(self, cell: Cell) -> Score | None:
        return self._scores.get(cell.key)

    def samples(self, cell: Cell, count: int) -> NDArray[np.uint8]:
        """Returns the first `count` images or clips of a cell."""
        asked = self._asked(cell)[:: max(1, self.seeds // count)][:count]
        return np.concatenate(list(self.subject.make(asked, cell.method, cell.steps)))

    def _asked(self, cell: Cell) -> list[Pair]:
        half = pairs(cell.split, clips=self.subject.clips)
        return [half[i % len(half)] for i in range(self.seeds)]

    def _read(self, cell: Cell, bar: tqdm) -> Score:
        asked, readings = self._asked(cell), list[Reading]()
        for batch in self.subject.make(asked, cell.method, cell.steps):
            readings += self.subject.judge(batch)
            bar.update(len(batch))
        return score(asked, readings)
