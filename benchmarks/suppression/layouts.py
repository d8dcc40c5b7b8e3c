"""The packed form against the authors' layout of Flux.1 on shapes-flux: scores side by side, and the distance.

python -m benchmarks.suppression.layouts
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks import report
from benchmarks.suppression.methods import NAG, NONE, Method
from benchmarks.suppression.pairs import pairs
from benchmarks.suppression.score import score
from benchmarks.suppression.subject import Subject

COLUMNS = ("layout", "negative absent %", "clean %", "caption kept %", "from the packed form, RMS of 255")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=256)
    seeds = parser.parse_args().seeds
    subject = Subject.load("shapes-flux")
    half = pairs("held-out", clips=False)
    asked = [half[i % len(half)] for i in range(seeds)]
    ways = {"none": NONE, "packed (default)": NAG, "authors' (`reference=True`)": Method("NAG", reference=True)}
    made = {name: np.concatenate(list(subject.make(asked, way, subject.steps))) for name, way in ways.items()}
    rows = []
    for name, images in made.items():
        found = score(asked, list(subject.judge(images)))
        distance = np.sqrt(np.square(images.astype(np.float32) - made["packed (default)"]).mean())
        shares = [f"{100 * share:.1f}" for share in (found.absent, found.clean, found.kept)]
        rows.append([name, *shares, f"{distance:.2f}"])
    title = f"Layouts of Flux.1's guidance on shapes-flux: held-out pairs, {seeds} images, {subject.steps} steps"
    report.write("layouts-shapes-flux", title, COLUMNS, rows, rows, report.machine())


if __name__ == "__main__":
    main()
