"""Are requests faster when they join each other at every denoiser step? This checkout against the code before it.

python -m benchmarks.joining
Starts both services, each with one worker on the CPU, and sends both the same requests at the same times: Poisson
arrivals at shares of the throughput that the code before reaches in a closed loop. The same requests one by one say
what they take alone.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import report
from benchmarks.joining import figures
from benchmarks.joining.load import COMPLETED, UNFINISHED, Reading, closed_loop, one_by_one, open_loop
from benchmarks.joining.mixes import MIXES, Mix, arrivals
from benchmarks.joining.services import ROOT, checkout, commit_of, service, warm_up_lines

BEFORE, AFTER, ALONE = "before", "after", "alone"
LOADS = (0.5, 0.8, 0.95)
CLOSED_LOOP_S = 25.0  # at most, of each closed loop
FIGURES = ("lone", "video", "bare")
COLUMNS = (
    "mix", "load", "requests", "median s before", "after", "ratio", "alone", "p95 s before", "after", "ratio", "alone",
    "completed/s before", "after", "ratio",
)  # fmt: skip
FIGURE_COLUMNS = ("figure", BEFORE, AFTER, "ratio", "goal")

Urls = Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    only: Sequence[str]
    seconds: float  # of a cell of one service
    drain_s: float  # after a cell's last arrival; what has not ended then is cancelled
    loads: Sequence[float]
    clients: int = 16  # of a closed loop
    lone: int = 20
    videos: int = 7
    bare_seconds: float = 10.0
    bare_rounds: int = 3
    bare_rows: Sequence[int] = (4, 8, 16, 32)


@dataclass(frozen=True)
class Cell:
    """One mix at one load, and what each version made of it; `alone` is this checkout with one request at a time."""

    mix: str
    load: float
    rate_per_s: float
    readings: Mapping[str, Reading]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joining", description=__doc__)
    parser.add_argument("--before", default="bd0159f", metavar="COMMIT", help="the code to compare with")
    parser.add_argument("--seconds", type=float, default=50.0, help="duration of one cell of one service")
    parser.add_argument("--only", nargs="+", choices=(*MIXES, *FIGURES), default=(*MIXES, *FIGURES))
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS, help="shares of the code before's throughput")
    parser.add_argument(
        "--batch-budget",
        choices=("fixed", "measured"),
        default="fixed",
        help="NAG_BATCH_BUDGET of both services; measured, a busy machine gives each another",
    )
    parser.add_argument("--results", type=Path, default=report.RESULTS, metavar="FOLDER", help="stores the table here")
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute or two; stores no results")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started
    plan = Plan(arguments.only, arguments.seconds, drain_s=60.0, loads=arguments.loads)
    if arguments.quick:
        plan = Plan(
            arguments.only, 6.0, 20.0, (0.8,), 4, lone=3, videos=1, bare_seconds=3, bare_rounds=1, bare_rows=(8,)
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nag-joining-")))
        code = {BEFORE: stack.enter_context(checkout(arguments.before, folder / "code")), AFTER: ROOT}
        urls, warm_up = {}, {}
        for name, path in code.items():
            say(f"starting the service {name}, {commit_of(path)}")
            urls[name] = stack.enter_context(service(path, folder / name, arguments.batch_budget))
            warm_up[name] = warm_up_lines(folder / name)
        cells, throughput = measure_mixes(urls, plan)
        rows = measure_figures(urls, plan)
        title = (
            f"{commit_of(code[BEFORE])} before and {commit_of(code[AFTER])} after, the same requests at the same times"
        )
        results = folder / "results" if arguments.quick else arguments.results
        whole = set(arguments.only) == {*MIXES, *FIGURES}
        name = "joining" if whole else "-".join(["joining", *arguments.only])
        write(name, title, cells, [*throughput, *rows], warm_up, results)
    broken = sum((broken_ends(cell) for cell in cells), Counter[str]())
    for end, count in broken.items():
        say(f"{count} requests: {end}")
    return 1 if broken else 0


def measure_mixes(urls: Urls, plan: Plan) -> tuple[list[Cell], list[list[str]]]:
    """Returns every cell of the mixes, and the rows of their closed loops."""
    cells: list[Cell] = []
    rows = []
    for key, mix in MIXES.items():
        if key not in plan.only:
            continue
        capacity = measure_capacity(urls, mix, plan)
        rows.append(figure(f"{mix.title}: completed/s in a closed loop of {plan.clients}", capacity))
        say(f"{mix.title}: {capacity[BEFORE]:.2f}/s before, {capacity[AFTER]:.2f}/s after in a closed loop")
        for load in plan.loads:
            cells.append(measure_cell(urls, key, load, load * capacity[BEFORE], plan, len(cells)))
    return cells, rows


def measure_capacity(urls: Urls, mix: Mix, plan: Plan) -> dict[str, float]:
    """Returns completed requests per second of each version: the mean of two closed loops, taken in turns."""
    seconds = min(plan.seconds / 2, CLOSED_LOOP_S) * mix.duration_share
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for name in (BEFORE, AFTER, AFTER, BEFORE):
        rates[name].append(asyncio.run(closed_loop(urls[name], mix.requests(0), plan.clients, seconds)))
    return {name: mean(values) for name, values in rates.items()}


def measure_cell(urls: Urls, key: str, load: float, rate_per_s: float, plan: Plan, number: int) -> Cell:
    """Sends both services the same load, each cell's first one being the last cell's second."""
    mix, readings = MIXES[key], {}
    times_s = arrivals(rate_per_s, plan.seconds * mix.duration_share, seed=number)
    for name in (BEFORE, AFTER) if number % 2 == 0 else (AFTER, BEFORE):
        reading = asyncio.run(open_loop(urls[name], mix.requests(number), times_s, plan.drain_s))
        say(f"{mix.title} at {load:.0%}, {name}: p95 {reading.p95_s:.2f} s, {dict(reading.ends)}")
        readings[name] = reading
    readings[ALONE] = asyncio.run(one_by_one(urls[AFTER], islice(mix.requests(number), len(times_s))))
    say(f"the same one by one: p95 {readings[ALONE].p95_s:.2f} s")
    return Cell(key, load, rate_per_s, readings)


def measure_figures(urls: Urls, plan: Plan) -> list[list[str]]:
    """Returns the rows of the single figures."""
    rows = []
    if {"lone", "video"} & set(plan.only):
        alone = asyncio.run(figures.lone(urls, plan.lone))
        queue_ms, latency_ms = ({name: alone[name][which] for name in urls} for which in ("queue_ms", "latency_ms"))
        rows.append(figure(f"queue_ms of a lone request, median of {plan.lone}", queue_ms, goal="≤ 3"))
        rows.append(figure("a 4-step image alone, ms", latency_ms))
    if "video" in plan.only:
        say("images behind videos")
        behind_ms = asyncio.run(figures.behind_video(urls, plan.videos))
        slowdown = {name: behind_ms[name] / latency_ms[name] for name in urls}
        rows.append(figure(f"the same behind a running video, ms, median of {plan.videos}", behind_ms))
        rows.append(figure("the same over alone", slowdown, goal="≤ 3"))
    if "bare" in plan.only:
        say("4-step images in a closed loop, beside the bare pipeline")
        served, bare = figures.against_bare(urls, plan.clients, plan.bare_seconds, plan.bare_rounds, plan.bare_rows)
        best = max(bare, key=lambda row_count: bare[row_count])
        rows.append(figure(f"4-step images/s in a closed loop of {plan.clients}", served, goal="ratio ≥ 1"))
        share = {name: value / bare[best] for name, value in served.items()}
        rows.append(figure(f"the same over the bare pipeline at {best} rows, {bare[best]:.1f}/s", share, goal="≥ 0.9"))
    return rows


def figure(title: str, values: Mapping[str, float], goal: str = "") -> list[str]:
    before, after = values[BEFORE], values[AFTER]
    return [title, f"{before:.2f}", f"{after:.2f}", ratio(before, after), goal]


def ratio(before: float, after: float) -> str:
    return f"{after / before:.2f}" if before else ""


def broken_ends(cell: Cell) -> Counter[str]:
    """Returns the ends other than completed and cut off."""
    ends = sum((reading.ends for reading in cell.readings.values()), Counter[str]())
    return Counter({end: count for end, count in ends.items() if end not in (COMPLETED, UNFINISHED)})


def write(
    name: str,
    title: str,
    cells: Sequence[Cell],
    rows: Sequence[Sequence[str]],
    warm_up: Mapping[str, Sequence[str]],
    folder: Path,
) -> None:
    """Prints and stores the table of the cells, with that of the single figures below it."""
    notes = [report.markdown(FIGURE_COLUMNS, rows)]
    if unfinished := sum(reading.ends[UNFINISHED] for cell in cells for reading in cell.readings.values()):
        notes.append(f"{unfinished} requests were cut off; they count with the time that they had waited.")
    data = {"cells": [as_json(cell) for cell in cells], "figures": rows, "warm_up": warm_up}
    report.write(
        name, title, COLUMNS, [as_row(cell) for cell in cells], data, report.machine(), notes=notes, folder=folder
    )


def as_row(cell: Cell) -> list[str]:
    before, after, alone = (cell.readings[name] for name in (BEFORE, AFTER, ALONE))
    row = [MIXES[cell.mix].title, f"{cell.load:.0%}", str(len(before.latencies_s))]
    for name in ("median_s", "p95_s", "completed_per_s"):
        one, other = getattr(before, name), getattr(after, name)
        row += [f"{one:.2f}", f"{other:.2f}", ratio(one, other)]
        if name != "completed_per_s":
            row.append(f"{getattr(alone, name):.2f}")
    return row


def as_json(cell: Cell) -> dict[str, Any]:
    readings = {
        name: {
            "ends": reading.ends,
            "lasted_s": round(reading.lasted_s, 2),
            "completed_per_s": round(reading.completed_per_s, 3),
            "median_s": round(reading.median_s, 4),
            "p95_s": round(reading.p95_s, 4),
        }
        for name, reading in cell.readings.items()
    }
    return {"mix": cell.mix, "load": cell.load, "rate_per_s": round(cell.rate_per_s, 3), **readings}


def say(line: str) -> None:
    """Reports progress on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
