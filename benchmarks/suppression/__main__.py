"""Is a negative prompt obeyed, and at what price? Every method on the pairs of prompt and negative in pairs.csv.

python -m benchmarks.suppression --model shapes-flux
"""

from __future__ import annotations

import argparse
import re

from benchmarks import report
from benchmarks.suppression import figures
from benchmarks.suppression.methods import NONE
from benchmarks.suppression.score import Score, percent
from benchmarks.suppression.study import Cell, Study
from benchmarks.suppression.subject import Subject

SEEDS = 256
COLUMNS = ("steps", "half", "method", "negative absent %", "clean %", "caption kept %", "diversity, bits")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suppression", description=__doc__)
    parser.add_argument("--model", default="shapes-flux")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help=f"images per cell; other than {SEEDS}, a table of their own"
    )
    parser.add_argument(
        "--only",
        type=re.compile,
        default="",
        help="read the cells that this regular expression finds; print what is known",
    )
    arguments = parser.parse_args()
    name = f"suppression-{arguments.model}" + (f"-{arguments.seeds}" if arguments.seeds != SEEDS else "")
    study = Study(Subject.load(arguments.model), arguments.seeds, report.RESULTS / f"{name}.scores.json")
    cells = list(study.cells())
    study.run([cell for cell in cells if re.search(arguments.only, cell.key)])

    read = [(cell, score) for cell in cells if (score := study.score(cell)) is not None]
    rows = [_row(cell, score) for cell, score in read]
    title = (
        f"Suppression on {arguments.model}: {arguments.seeds} images per row over all pairs of a half, 95 % intervals"
    )
    data = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    report.write(name, title, COLUMNS, rows, data, report.machine())
    if any(cell.method == NONE for cell, _ in read):
        figures.save_front(read, study.subject.steps, report.RESULTS / f"{name}.png", title)
        figures.save_samples(study, report.RESULTS / f"{name}-samples.png")


def _row(cell: Cell, score: Score) -> list[str]:
    shares = (percent(value, score.count) for value in (score.absent, score.clean, score.kept))
    return [str(cell.steps), cell.split, cell.method.label, *shares, f"{score.diversity:.2f}"]


if __name__ == "__main__":
    main()
