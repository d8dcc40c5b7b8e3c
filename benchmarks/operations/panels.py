"""The dashboards as Grafana would show them: every panel's queries, asked of a Prometheus, and plotted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.operations.prometheus import WINDOW, Prometheus

__all__ = ["PanelData", "dashboard_panels", "plot", "query_panels"]

FOLDER = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards"
ACROSS = 3
LEGEND_MOST = 6
STEP_S = 2.0
GAP_S = 3 * STEP_S


@dataclass(frozen=True)
class PanelData:
    """One panel; `series` are those of all its queries, each with its name."""

    dashboard: str
    title: str
    unit: str
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    empty: Sequence[str]  # queries without an answer
    needs_gpu: bool


def dashboard_panels() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the panels in the files of the dashboards, each with the name of its dashboard."""
    for file in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            yield file.stem, panel


async def query_panels(prometheus: Prometheus, begin_s: float, end_s: float) -> list[PanelData]:
    """Returns every query of every panel, with the variables as Grafana fills them in."""
    found = []
    for dashboard, panel in dashboard_panels():
        series, empty = [], []
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", WINDOW).replace("$model", ".*")
            answer = await prometheus.history(expr, begin_s, end_s, STEP_S)
            points = [
                (_name(target["legendFormat"], series_data["metric"]), _points(series_data["values"]))
                for series_data in answer
            ]
            points = [(name, values) for name, values in points if values]
            series += points
            empty += [] if points else [expr]
        needs_gpu = all("nag_gpu_" in target["expr"] for target in panel["targets"])
        unit = panel["fieldConfig"]["defaults"]["unit"]
        found.append(PanelData(dashboard, panel["title"], unit, series, empty, needs_gpu))
    return found


def plot(panels: Sequence[PanelData], begin_s: float, marks: Sequence[tuple[float, str]], folder: Path) -> list[Path]:
    """Draws one image per dashboard; `marks` are times and what happened then."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    written = []
    for dashboard in dict.fromkeys(panel.dashboard for panel in panels):
        mine = [panel for panel in panels if panel.dashboard == dashboard]
        rows = math.ceil(len(mine) / ACROSS)
        size = (5 * ACROSS, 2.6 * rows)
        figure, axes = pyplot.subplots(rows, ACROSS, figsize=size, squeeze=False, sharex=True, layout="constrained")
        for panel, axis in zip(mine, axes.flat, strict=False):
            for name, values in panel.series:
                axis.plot([t - begin_s for t, _ in values], [v for _, v in values], label=name, linewidth=1)
            for at_s, _ in marks:
                axis.axvline(at_s - begin_s, color="0.8", linewidth=0.6, zorder=0)
            axis.set_title(f"{panel.title} ({panel.unit})", fontsize=9)
            axis.tick_params(labelsize=7)
            axis.set_ylim(bottom=0)
            if not panel.series:
                axis.text(0.5, 0.5, "no GPU here", transform=axis.transAxes, ha="center", fontsize=8, color="0.5")
            elif len(panel.series) <= LEGEND_MOST:
                axis.legend(fontsize=6, loc="upper left", framealpha=0.6)
        for axis in list(axes.flat)[len(mine) :]:
            axis.axis("off")
        figure.suptitle(f"NAG Server: {dashboard} (seconds since the begin; lines: {', '.join(n for _, n in marks)})")
        path = folder / f"operations-{dashboard}.png"
        figure.savefig(path, dpi=70)
        pyplot.close(figure)
        written.append(path)
    return written


def _name(legend: str, labels: Mapping[str, str]) -> str:
    for key, value in labels.items():
        legend = legend.replace(f"{{{{{key}}}}}", value)
    return re.sub(r"{{\w+}}", "", legend).strip()  # a label that is empty is no label


def _points(values: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    """With a point that is no number in every gap, as Grafana breaks a line there."""
    points: list[tuple[float, float]] = []
    for t, v in ((float(t), float(v)) for t, v in values if math.isfinite(float(v))):
        if points and t - points[-1][0] > GAP_S:
            points.append((t, math.nan))
        points.append((t, v))
    return points
