"""The study to look at: what each method pays for what it suppresses, and the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.suppression.methods import FAMILIES, NAG, NONE, Method
from benchmarks.suppression.score import Score
from benchmarks.suppression.study import Cell, Study

__all__ = ["save_front", "save_samples", "save_sheet"]

#: What the study wants: the negative absent, and this close to unguided on both other axes.
ABSENT_WANTED, WITHIN_POINTS, AXES = 95.0, 3.0, ("clean", "kept")
#: By the share of the steps that is guided, as FAMILIES names it.
DASHES = {"": "-", "half": "--", "¾": ":"}
SAMPLES = 10
LABEL_PX = 150


def save_front(read: Sequence[tuple[Cell, Score]], steps: int, path: Path, title: str) -> None:
    """Negative absent against clean and against kept, a line a method along its scale, on the held-out pairs. Colour
    tells the method, dashes the share of the steps that it guides; the shaded corner is what is wanted."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    here = {cell.method: score for cell, score in read if cell.steps == steps and cell.split == "held-out"}
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 6), layout="constrained")
    figure.suptitle(f"{title.split(':')[0]}, {steps} steps, held-out pairs")
    hues = mpl.colormaps["tab20"](range(20))
    colors: dict[str, Any] = {"none": "black"}
    for name, methods in FAMILIES.items():
        method, _, share = name.partition(", first ")
        color = colors.setdefault(method, hues[(len(colors) - 1) % len(hues)])
        found = [here[method] for method in methods if method in here]
        if not found:
            continue
        for axes, axis in zip(panels, AXES, strict=True):
            x, y = [100 * value.absent for value in found], [100 * getattr(value, axis) for value in found]
            axes.plot(x, y, DASHES[share], color=color, marker="o", ms=4, label=name)
    for axes, axis in zip(panels, AXES, strict=True):
        plain = 100 * getattr(here[NONE], axis)
        axes.plot(100 * here[NONE].absent, plain, "k*", ms=14)
        axes.fill_between([ABSENT_WANTED, 100], plain - WITHIN_POINTS, 100, color="green", alpha=0.12)
        axes.set(xlabel="negative absent, %", ylabel=f"{axis}, %", xlim=(None, 100))
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def save_samples(study: Study, path: Path) -> None:
    """Saves the same pairs and seeds by each of the main methods, a row for each; of a clip the middle frame."""
    methods = (NONE, Method("CFG", 2.0), Method("CFG", 5.0), Method("NASA", 1.25), Method("VSF", 2.0), NAG)
    rows = {}
    for method in methods:
        made = study.samples(Cell(study.subject.steps, "held-out", method), SAMPLES)
        rows[method.label] = made[:, made.shape[1] // 2] if made.ndim == 5 else made
    save_sheet(rows, path)


def save_sheet(rows: Mapping[str, NDArray[np.uint8]], path: Path) -> None:
    """Writes rows of images (N, H, W, 3) under each other, each behind its label."""
    lines = []
    for text, images in rows.items():
        line = np.concatenate(list(images), axis=1)
        label = Image.new("RGB", (LABEL_PX, len(line)), "white")
        ImageDraw.Draw(label).text((8, len(line) // 2 - 6), text, fill="black")
        lines.append(np.concatenate([np.asarray(label), line], axis=1))
    Image.fromarray(np.concatenate(lines)).save(path)
