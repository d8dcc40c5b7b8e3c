"""The scores as the paper's table, with what has to be known to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from app.catalog import NAG_BOUNDS
from benchmarks import report
from benchmarks.paper_table.measure import Reference, Scores
from benchmarks.paper_table.metrics.networks import METRICS, Metric, Networks
from benchmarks.paper_table.paper_rows import ROWS, PaperRow
from benchmarks.paper_table.plan import METHODS, Plan

__all__ = ["Run", "write"]

COLUMNS: dict[Metric, str] = {"clip": "CLIP Score ↑", "fid": "FID ↓", "pfid": "PFID ↓", "imagereward": "ImageReward ↑"}
DIGITS: dict[Metric, int] = {"clip": 2, "fid": 2, "pfid": 2, "imagereward": 3}
#: Of the paper's set; FID of fewer images is larger, whatever they show.
COCO = 5000


@dataclass(frozen=True)
class Run:
    """What was measured, of what, and by whom."""

    plan: Plan
    places: Sequence[int]
    scores: Mapping[str, Scores]
    networks: Networks
    metrics: frozenset[Metric]
    reference: Reference | None
    machine: str


def write(run: Run, folder: Path) -> None:
    """Prints the table and stores it in the folder as paper_table-<model>.md and .json."""
    shown = [metric for metric in METRICS if metric in run.metrics]
    numbers = {method: {metric: _number(run.scores[method], metric) for metric in shown} for method in METHODS}
    differences = {metric: _difference(run, metric) for metric in shown}
    rows = [
        [method, str(len(run.places)), *(f"{numbers[method][metric]:.{DIGITS[metric]}f}" for metric in shown)]
        for method in METHODS
    ]
    rows.append(["NAG − none", "", *(_signed(*differences[metric], DIGITS[metric]) for metric in shown)])
    published = ROWS.get(run.plan.entry.id) if run.networks.weights == "pretrained" else None
    if published is not None:
        rows += _paper_rows(published, shown)
    data = {
        "prompts": len(run.plan.prompts),
        "measured": len(run.places),
        "metric_weights": run.networks.weights,
        "networks": run.networks.names,
        "first_seed": run.plan.first_seed,
        "scores": numbers,
        "difference": {metric: {"mean": mean, "interval_95": half} for metric, (mean, half) in differences.items()},
        "published": None if published is None else vars(published),
    }
    report.write(
        f"paper_table-{run.plan.entry.id}",
        f"Table 1 of arXiv 2505.21179 on {run.plan.entry.id}: the same prompts and seeds without and with NAG",
        ("method", "images", *(COLUMNS[metric] for metric in shown)),
        rows,
        data,
        run.machine,
        notes=_notes(run),
        folder=folder,
    )


def _number(scores: Scores, metric: Metric) -> float:
    found: Any = getattr(scores, metric)
    return fmean(found) if isinstance(found, list) else float(found)


def _difference(run: Run, metric: Metric) -> tuple[float, float | None]:
    """Returns the mean, and half a 95 % interval if every image has a number: the images of a seed are a pair."""
    none, nag = (getattr(run.scores[method], metric) for method in METHODS)
    if not isinstance(none, list):
        return nag - none, None
    each = [guided - plain for plain, guided in zip(none, nag, strict=True)]
    return fmean(each), 1.96 * stdev(each) / len(each) ** 0.5


def _signed(mean: float, half: float | None, digits: int) -> str:
    return f"{mean:+.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def _paper_rows(published: PaperRow, shown: Sequence[Metric]) -> list[list[str]]:
    told = {"none": published.none, "NAG": published.nag}
    return [
        [f"paper: {method}, steps: {published.steps}", f"{COCO}"]
        + [f"{values[METRICS.index(metric)]:.{DIGITS[metric]}f}" for metric in shown]
        for method, values in told.items()
    ]


def _notes(run: Run) -> list[str]:
    plan, networks = run.plan, run.networks
    plain, guided = (plan.generation(method, 0) for method in METHODS)
    assert guided.nag is not None
    negatives = {prompt.negative for prompt in plan.prompts}
    negative = f"“{negatives.pop()}”" if len(negatives) == 1 else "each prompt's own"
    notes = [f"Metric weights: {networks.weights} ({networks.names})."]
    if networks.weights == "random":
        notes.append("With random weights the numbers mean nothing: they show that every part runs.")
    nag = ", ".join(f"{name} {getattr(guided.nag, name):g}" for name in NAG_BOUNDS)
    notes.append(
        f"{plain.width}x{plain.height} px, steps: {plain.num_inference_steps}, guidance_scale: "
        f"{plain.guidance_scale:g}, {plan.entry.dtype}, seeds from {plan.first_seed}; NAG: {nag}, away from {negative}."
    )
    left = len(plan.prompts) - len(run.places)
    if left:
        notes.append(f"{left} of {len(plan.prompts)} prompts are not drawn yet; the same command goes on.")
    if run.reference is not None:
        notes.append(_distances(run.reference, len(run.places), run.metrics))
    return notes


def _distances(reference: Reference, count: int, metrics: frozenset[Metric]) -> str:
    said = [f"Reference: {len(reference.files)} images."]
    if "fid" in metrics:
        said.append("FID: the middle square, bicubic with antialiasing to Inception's 299 px.")
    if "pfid" in metrics:
        small = reference.small()
        without = f", without {small} images of the reference that are smaller" if small else ""
        said.append(f"PFID: {reference.patch_px} px of the middle, unscaled{without}.")
    if min(count, len(reference.files)) < COCO:
        said.append(f"Both grow as images get fewer: only tables of equal counts compare, the paper's of {COCO}.")
    return " ".join(said)
