"""Does a caption's spelling change what is drawn? Each spelling of the held-out prompts, unguided, read by the judge.

python -m benchmarks.suppression.spelling
"""

from __future__ import annotations

import argparse
from dataclasses import fields

import numpy as np

from benchmarks import report
from benchmarks.suppression.methods import NONE
from benchmarks.suppression.pairs import Pair, pairs
from benchmarks.suppression.score import score
from benchmarks.suppression.subject import Subject
from training.shapes.world import Caption

MODELS = ("shapes-flux", "shapes-wan")
RED_CIRCLES = 16
COLUMNS = ("model", "spelling", f"red circles of {RED_CIRCLES}", "caption kept %")


class CapitalizedCaption(Caption):
    def __str__(self) -> str:
        return super().__str__().title()


class UppercaseCaption(Caption):
    def __str__(self) -> str:
        return super().__str__().upper()


SPELLINGS: dict[str, type[Caption]] = {
    "a red circle": Caption,
    "A Red Circle": CapitalizedCaption,
    "A RED CIRCLE": UppercaseCaption,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=128)
    arguments = parser.parse_args()
    rows = [
        [model, spelling, *_scores(subject, kind, arguments.seeds)]
        for model in arguments.model
        for subject in [Subject.load(model)]
        for spelling, kind in SPELLINGS.items()
    ]
    title = f"Spellings of the held-out prompts, {arguments.seeds} samples per row"
    report.write("spelling", title, COLUMNS, rows, rows, report.machine())


def _scores(subject: Subject, kind: type[Caption], seeds: int) -> tuple[str, str]:
    red_circle = Pair(kind(color="red", shape="circle"), Caption())
    half = [Pair(_spelled(pair.prompt, kind), pair.negative) for pair in pairs("held-out", clips=subject.clips)]
    red, kept = (
        score(asked, list(subject.judge(np.concatenate(list(subject.make(asked, NONE, subject.steps))))))
        for asked in ([red_circle] * RED_CIRCLES, [half[i % len(half)] for i in range(seeds)])
    )
    return f"{red.kept * RED_CIRCLES:.0f}", f"{100 * kept.kept:.1f}"


def _spelled(caption: Caption, kind: type[Caption]) -> Caption:
    return kind(**{field.name: getattr(caption, field.name) for field in fields(caption)})


if __name__ == "__main__":
    main()
