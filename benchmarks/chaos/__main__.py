"""Does the service lose a job, or run one twice, whatever is killed? And does a restart of it show?

python -m benchmarks.chaos
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.chaos.faults import FAULTS
from benchmarks.chaos.scenarios import Story, chaos, rolling

COLUMNS = ("", "faults", "rolling restart")
FINDINGS = {
    "lost": "lost",
    "twice": "ended twice",
    "doubled": "one key, two jobs",
    "changed": "another end than told",
    "unreasoned": "failed without a reason",
    "orphans": "files without a completed job",
    "missing": "files of completed jobs that are gone",
    "wrong": "results not as asked for",
    "left": "left in the queue",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument(
        "--seed", type=int, default=None, help="seed of requests, faults and their times; default: a random one"
    )
    parser.add_argument(
        "--limit-s", type=float, default=900.0, help="longest time of each of the two; beyond it, it has failed"
    )
    parser.add_argument("--fsync", choices=("always", "everysec"), default="always", help="the server's appendfsync")
    for kind, count in zip(FAULTS, (8, 3, 3, 3), strict=True):
        parser.add_argument(f"--{kind.replace('_', '-')}", type=int, default=count, metavar="TIMES")
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    counts = {kind: getattr(arguments, kind) for kind in FAULTS}
    broken = _run(
        "faults", lambda folder: chaos(folder, arguments.jobs, counts, seed, arguments.limit_s, arguments.fsync)
    )
    rolled = _run("rolling", lambda folder: rolling(folder, seed, arguments.limit_s))
    title = (
        f"{arguments.jobs} jobs under faults, appendfsync {arguments.fsync}, seed {seed}; a rolling restart under load"
    )
    data = {"seed": seed, "faults": _data(broken), "rolling": _data(rolled)}
    report.write("chaos", title, COLUMNS, _rows(broken, rolled), data, report.machine())
    for story in (broken, rolled):
        if story.faults:
            print(json.dumps(story.faults, indent=1))
    return 1 if broken.faults or rolled.faults or rolled.server_errors else 0


def _rows(broken: Story, rolled: Story) -> list[list[str]]:
    """Returns the rows of the table. A value that only one of the two has is left open in the other."""

    def row(name: str, one: Any, other: Any) -> list[str]:
        return [name, *("" if value is None else str(value) for value in (one, other))]

    rows = [row("jobs", len(broken.outcomes), len(rolled.outcomes))]
    rows += [row(name.replace("_", " "), count, None) for name, count in broken.events.items()]
    rows += [row(name, None, count) for name, count in rolled.events.items()]
    for end in sorted({*broken.ends, *rolled.ends}):
        rows.append(row(end or "no end", broken.ends[end], rolled.ends[end]))
    for attempts in sorted({*broken.attempts, *rolled.attempts}):
        rows.append(row(f"completed at attempt {attempts}", broken.attempts[attempts], rolled.attempts[attempts]))
    rows += [
        row(told, *(len(getattr(story.findings, name)) for story in (broken, rolled)))
        for name, told in FINDINGS.items()
    ]
    rows.append(row("late results refused", len(broken.findings.refused), len(rolled.findings.refused)))
    rows.append(row("files left by the killed", len(broken.findings.leftovers), len(rolled.findings.leftovers)))
    rows.append(row("parts that did not end in order", len(broken.unclean), len(rolled.unclean)))
    for answer in ("refused", "broken"):
        rows.append(row(f"connections {answer}, and asked again", broken.answers[answer], rolled.answers[answer]))
    rows.append(row("answers 5xx, and asked again", broken.server_errors, rolled.server_errors))
    rows.append(row("median of a request, s", f"{broken.median_s:.1f}", f"{rolled.median_s:.1f}"))
    rows.append(row("longest, s", f"{broken.longest_s:.1f}", f"{rolled.longest_s:.1f}"))
    rows.append(row("all, s", f"{broken.seconds:.0f}", f"{rolled.seconds:.0f}"))
    return rows


def _data(story: Story) -> dict[str, Any]:
    return {
        "events": story.events,
        "ends": story.ends,
        "attempts": story.attempts,
        "answers": story.answers,
        "faults": story.faults,
        "late_results_refused": len(story.findings.refused),
        "seconds": round(story.seconds, 1),
        "median_s": round(story.median_s, 2),
        "longest_s": round(story.longest_s, 2),
    }


def _run(name: str, tell: Callable[[Path], Coroutine[Any, Any, Story]]) -> Story:
    """To its end; told to end before, what it started is ended first. The folder stays where something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"nag-chaos-{name}-"))
    print(f"logs in {folder}", flush=True)

    async def run() -> Story:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await tell(folder)

    story = asyncio.run(run())
    if not story.faults:
        shutil.rmtree(folder)
    return story


if __name__ == "__main__":
    sys.exit(main())
