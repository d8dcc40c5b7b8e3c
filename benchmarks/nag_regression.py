"""Is a guided denoiser step slower than with the code of another commit? Both guide the same denoiser in turn.

python -m benchmarks.nag_regression --before 687db6b --family flux sd3 sdxl sana wan qwen-image
Reads the CPU time of the calling thread, which other processes disturb less than wall time. Use OMP_NUM_THREADS=1, so
that all the work is done in that thread.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from tqdm import tqdm

import nag
from benchmarks import report
from benchmarks.denoisers import MAKERS, Denoiser, Draw
from benchmarks.joining.services import ROOT, checkout, commit_of
from nag.families import family_of

PLAIN, BEFORE, AFTER = "plain", "before", "after"
COLUMNS = (
    "step", "commit after", "rounds", "plain, CPU s", "before, × plain", "after, × plain",
    "after ÷ before, CPU: median", "min–max", "wall",
    "Python frames per attention call before", "after", "per step before", "after",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="COMMIT", help="the code to compare with")
    parser.add_argument("--family", choices=sorted(MAKERS), nargs="+", default=["sana"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shrink", type=int, default=1, help="divides an image's height and width, and the frames")
    parser.add_argument("--results", type=Path, default=report.RESULTS, metavar="FOLDER", help="stores the table here")
    arguments = parser.parse_args()
    result = "nag_regression" if arguments.shrink == 1 else f"nag_regression-shrink-{arguments.shrink}"
    data = stored(arguments.results / f"{result}.json", arguments.before)
    with tempfile.TemporaryDirectory(prefix="nag-before-") as folder, torch.no_grad():
        with checkout(arguments.before, Path(folder) / "code") as code:
            commits = commit_of(code), commit_of(ROOT)
            guides: dict[str, Callable[..., Any]] = {BEFORE: load_library(code).guide, AFTER: nag.guide}
        for name in arguments.family:
            torch.manual_seed(0)
            work = MAKERS[name](Draw("cpu", torch.float32, arguments.shrink), False)
            frames = {side: count_frames(work, guide) for side, guide in guides.items()}
            times = measure(work, guides, arguments.rounds)
            data[name] = {"commits": commits, "what": work.what, "times": times, "frames": frames}
            del work
            # After every family, for a run that is cut off.
            title = f"Commit {commits[0]} before, float32; the rounds of a family are in turn"
            rows = [as_row(**family) for family in data.values()]
            report.write(result, title, COLUMNS, rows, data, report.machine(), folder=arguments.results)


def stored(file: Path, before: str) -> dict[str, Any]:
    """Returns the families of earlier runs against the same commit, by name; they stay in the table."""
    data: dict[str, Any] = json.loads(file.read_text())["data"] if file.exists() else {}
    return {name: family for name, family in data.items() if before.startswith(family["commits"][0])}


def load_library(code: Path) -> ModuleType:
    """Imports `nag` of another checkout beside this one's."""
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "nag"}
    sys.path.insert(0, str(code))
    try:
        return importlib.import_module("nag")
    finally:
        sys.path.remove(str(code))
        for name in [name for name in sys.modules if name.partition(".")[0] == "nag"]:
            del sys.modules[name]
        sys.modules.update(own)


def measure(work: Denoiser, guides: Mapping[str, Callable[..., Any]], rounds: int) -> dict[str, list[list[float]]]:
    """Returns the CPU and wall seconds of plain steps and of both guides' steps; each round reverses their order."""
    times: dict[str, list[list[float]]] = {PLAIN: [], **{side: [] for side in guides}}
    for round_ in tqdm(range(rounds), unit="round", desc=work.what):
        for side in sorted(times, reverse=bool(round_ % 2)):
            if side == PLAIN:
                times[side].append(timed_step(work))
            else:
                with guides[side](work.pipe, **work.negative):
                    work.step(is_small=True)  # the one step per prompt that projects the negative's keys
                    times[side].append(timed_step(work))
    return times


def timed_step(work: Denoiser) -> list[float]:
    """Returns the CPU seconds and the wall seconds of a step."""
    cpu_s, wall_s = time.thread_time(), time.perf_counter()
    work.step()
    return [time.thread_time() - cpu_s, time.perf_counter() - wall_s]


def count_frames(work: Denoiser, guide: Callable[..., Any]) -> tuple[float, int]:
    """Returns the Python frames that a guided step adds: per guided attention call, and in the whole step.

    A frame is a call of a Python function. Those of the same attention call without guidance are subtracted.
    """
    with guide(work.pipe, **work.negative):
        work.step(is_small=True)
        guided = profile(work, "GuidedProcessor.__call__")
        guided_total = profile(work)
    plain = profile(work, f"{plain_processor(work)}.__call__")
    # An attention module that guidance leaves alone may have a processor of the same class.
    per_call = guided[0] / guided[1] - plain[0] / plain[1]
    return round(per_call, 1), guided_total[0] - profile(work)[0]


def plain_processor(work: Denoiser) -> str:
    """Returns the name of the class of the processors that are guided."""
    (name,) = {type(module.processor).__name__ for module in family_of(work.pipe).attentions(work.module)}
    return name


def profile(work: Denoiser, function: str | None = None) -> tuple[int, int]:
    """Returns how many Python frames a small step runs inside calls of `function`, and how many such calls."""
    frames = calls = depth = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal frames, calls, depth
        is_function = function is None or frame.f_code.co_qualname == function
        if event == "call":
            frames += depth > 0 or function is None
            if is_function:
                depth, calls = depth + 1, calls + 1
        elif event == "return" and is_function:
            depth -= 1

    sys.setprofile(count)
    try:
        work.step(is_small=True)
    finally:
        sys.setprofile(None)
    return frames, calls


def as_row(
    commits: Sequence[str],
    what: str,
    times: Mapping[str, Sequence[Sequence[float]]],
    frames: Mapping[str, Sequence[float]],
) -> list[str]:
    """Returns a family's row: the medians of its rounds."""
    plain, before, after = ([cpu_s for cpu_s, _ in times[side]] for side in (PLAIN, BEFORE, AFTER))
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    wall = [new[1] / old[1] for old, new in zip(times[BEFORE], times[AFTER], strict=True)]
    return [
        what,
        commits[1],
        str(len(ratios)),
        f"{statistics.median(plain):.2f}",
        *(f"{statistics.median(map(float.__truediv__, side, plain)):.3f}" for side in (before, after)),
        f"{statistics.median(ratios):.3f}",
        f"{min(ratios):.3f}–{max(ratios):.3f}",
        f"{statistics.median(wall):.3f}",
        *(f"{frames[side][0]:g}" for side in (BEFORE, AFTER)),
        *(str(frames[side][1]) for side in (BEFORE, AFTER)),
    ]


if __name__ == "__main__":
    main()
