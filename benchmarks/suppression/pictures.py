"""The study to look at: what each method pays for what it suppresses, and the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.suppression.methods import FAMILIES, NAG, NONE, Method
from benchmarks.suppression.score import Score
from benchmarks.suppression.study import Cell, Study

__all__ = ["save_front", "save_samples"]

SAMPLES = 10
LABEL_PX = 150


def save_front(read: Sequence[tuple[Cell, Score]], steps: int, path: Path, title: str) -> None:
    """Negative absent against clean, a line a method along its scale, on the held-out pairs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    here = {cell.method: score for cell, score in read if cell.steps == steps and cell.split == "held-out"}
    for name, methods in FAMILIES.items():
        found = [here[method] for method in methods if method in here]
        if found:
            x, y = [100 * each.absent for each in found], [100 * each.clean for each in found]
            axes.plot(x, y, marker="*" if name == "none" else "o", ms=12 if name == "none" else 5, label=name)
    axes.set(xlabel="negative absent, %", ylabel="clean, %", title=f"{title.split(':')[0]}, {steps} steps, held-out")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def save_samples(study: Study, path: Path) -> None:
    """The same pairs and seeds by each of the main methods, a row each; of a clip the middle frame."""
    methods = (NONE, Method("CFG", 2.0), Method("CFG", 5.0), Method("NASA", 1.25), Method("VSF", 2.0), NAG)
    rows = []
    for method in methods:
        made = study.samples(Cell(study.subject.steps, "held-out", method), SAMPLES)
        row = np.concatenate(list(made[:, made.shape[1] // 2] if made.ndim == 5 else made), axis=1)
        label = Image.new("RGB", (LABEL_PX, row.shape[0]), "white")
        ImageDraw.Draw(label).text((8, row.shape[0] // 2 - 6), method.label, fill="black")
        rows.append(np.concatenate([np.asarray(label), row], axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)
