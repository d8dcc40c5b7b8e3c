"""What do the options of guidance take away, spoil and cost on the embedded models? Each beside plain NAG.

python -m benchmarks.suppression.options
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.suppression.methods import NAG, NONE, Method
from benchmarks.suppression.pairs import pairs
from benchmarks.suppression.score import percent, score
from benchmarks.suppression.subject import Subject
from nag.families import family_of

MODELS = ("shapes-flux", "shapes-sd", "shapes-sd-turbo", "shapes-wan")
COLUMNS = ("option", "negative absent %", "clean %", "caption kept %", "time of a call, × unguided")


def methods_of(subject: Subject) -> list[Method]:
    """Returns every option on its own, with the numbers of the model family where it names none."""
    count = len(family_of(subject.pipe).attentions(getattr(subject.pipe, "unet", None) or subject.pipe.transformer))
    half = count // 2
    return [
        NONE,
        NAG,
        *(Method("NAG", start=start) for start in (0.1, 0.3)),
        Method("NAG", end=0.5, scale_decay=1.0),
        *(Method("NAG", blocks=blocks) for blocks in (range(half), range(half, count))),
        Method("NAG, orthogonal"),
        *(Method("VSF", scale) for scale in (1.25, 1.5, 2.0)),
    ]


def run(subject: Subject, methods: Sequence[Method], seeds: int) -> dict[str, tuple[NDArray[np.uint8], list[float]]]:
    """Returns images or clips of each method, and the seconds of each pipeline call. The methods take turns for every
    batch.
    """
    half = pairs("held-out", clips=subject.clips)
    asked = [half[i % len(half)] for i in range(seeds)]
    for _ in subject.make(asked[:1], NAG, subject.steps):
        pass  # the first call of all is slower
    calls = {method.label: subject.make(asked, method, subject.steps) for method in methods}
    made: dict[str, tuple[list[Any], list[float]]] = {label: ([], []) for label in calls}
    for _ in range(0, seeds, subject.batch):
        for label, call in calls.items():
            begun = time.perf_counter()
            made[label][0].append(next(call))
            made[label][1].append(time.perf_counter() - begun)
    return {label: (np.concatenate(batches), seconds) for label, (batches, seconds) in made.items()}


def rows_of(subject: Subject, made: dict[str, tuple[NDArray[np.uint8], list[float]]]) -> list[list[str]]:
    half = pairs("held-out", clips=subject.clips)
    plain_s = made[NONE.label][1]
    rows = []
    for label, (images, seconds) in made.items():
        found = score([half[i % len(half)] for i in range(len(images))], list(subject.judge(images)))
        ratio = statistics.median(mine / plain for mine, plain in zip(seconds, plain_s, strict=True))
        shares = (percent(value, found.count) for value in (found.absent, found.clean, found.kept))
        rows.append([label, *shares, f"{ratio:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suppression.options", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=128, help="images or clips per option")
    arguments = parser.parse_args()
    for name in arguments.model:
        subject = Subject.load(name)
        rows = rows_of(subject, run(subject, methods_of(subject), arguments.seeds))
        title = f"Options on {name}: {arguments.seeds} held-out pairs, {subject.steps} steps, 95 % intervals"
        data = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        report.write(f"options-{name}", title, COLUMNS, rows, data, report.machine())


if __name__ == "__main__":
    main()
