"""How long the few wait beside the many: the planner against first come, first served, 8 jobs at a time.

One worker, a virtual clock, every job of one size, 8 jobs a second. The flood is queued first, the others behind it.
Printed is when the last job of each group is done, in seconds; no job comes later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from app.jobs import Priority
from app.queue.snapshot import FairShareState, PendingJob
from app.worker.jobs.planner import Rules, plan
from app.worker.protocol import Room
from benchmarks import report

ROOM = Room(free=8, whole=8, jobs=0)
RULES = Rules(oldest_wait_ms=30_000)
Queue = Sequence[tuple[str, PendingJob]]


def main() -> int:
    rows, data = [], {}
    for case, queue in cases().items():
        ends = {"planned": _ends(queue, _planned), "first come": _ends(queue, _first_come)}
        data[case] = ends
        for group in dict.fromkeys(group for group, _ in queue):
            jobs = sum(other == group for other, _ in queue)
            rows.append([case, group, str(jobs), str(ends["planned"][group]), str(ends["first come"][group])])
    columns = ("queue", "group", "jobs", "planned: last done, s", "first come, first served, s")
    report.write("fairness", "One worker, 8 jobs a second", columns, rows, data, "a virtual clock")
    return 0


def cases() -> dict[str, Queue]:
    """Groups of jobs by the name of their queue, in the order they came in."""
    return {
        "a flooding tenant": _queue(
            [("flood", 400, {"tenant": "flood"}), ("b", 5, {"tenant": "b"}), ("c", 5, {"tenant": "c"})]
        ),
        "priorities": _queue(
            [("low", 5, {"priority": Priority.LOW}), ("normal", 400, {}), ("high", 20, {"priority": Priority.HIGH})]
        ),
    }


def _queue(groups: Sequence[tuple[str, int, dict[str, object]]]) -> Queue:
    queue: list[tuple[str, PendingJob]] = []
    for group, jobs, changes in groups:
        for _ in range(jobs):
            number = len(queue)
            job = PendingJob(str(number), "default", Priority.NORMAL, number, 1, 1, 0, 0)
            queue.append((group, job._replace(**changes)))  # type: ignore[arg-type]
    return queue


def _planned(waiting: Sequence[PendingJob], turns: FairShareState, now_ms: int) -> tuple[Sequence[str], FairShareState]:
    planned = plan(waiting, turns, ROOM, now_ms, RULES)
    return planned.ids, planned.turns


def _first_come(waiting: Sequence[PendingJob], turns: FairShareState, _: int) -> tuple[Sequence[str], FairShareState]:
    return [job.id for job in waiting[: ROOM.free]], turns


def _ends(
    queue: Queue, choose: Callable[[Sequence[PendingJob], FairShareState, int], tuple[Sequence[str], FairShareState]]
) -> dict[str, int]:
    """Returns the second at which the last job of each group is done."""
    groups = {job.id: group for group, job in queue}
    waiting, turns, ends, now_s = [job for _, job in queue], FairShareState(), dict[str, int](), 0
    while waiting:
        ids, turns = choose(waiting, turns, now_s * 1000)
        now_s += 1
        ends |= {groups[job_id]: now_s for job_id in ids}
        waiting = [job for job in waiting if job.id not in ids]
    return ends


if __name__ == "__main__":
    sys.exit(main())
