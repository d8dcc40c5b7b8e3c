"""Decides which waiting jobs of a model a worker claims next; pure, so without a clock and without I/O.

Tenants take turns by deficit round robin in units of work, so that a tenant who floods the queue delays itself. A turn
goes to the tenant's oldest job of its highest priority; but at least every second turn of a tenant goes to its oldest
overdue job, so that nothing starves. Jobs are taken while they fit. A job that does not fit is skipped in favor of
other lanes (a lane: jobs of one tenant and priority, oldest first). It is skipped no longer once it is overdue, or once
its tenant is behind the others by the work of the largest job: then nothing more is taken before it fits.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from app.queue.snapshot import FairShareState, PendingJob
from app.worker.protocol import Room

__all__ = ["Plan", "Rules", "plan"]

#: A turn's credit as a share of the largest job's work: smaller is finer, and this many rounds pay the largest debt.
CREDIT_SHARE = 1 / 16


@dataclass(frozen=True)
class Rules:
    """Settings of the planner."""

    oldest_wait_ms: int  # a job that has waited longer is overdue


@dataclass(frozen=True)
class Plan:
    """The jobs to claim, in the order they were chosen, and whose turn it is after them."""

    ids: tuple[str, ...]
    turns: FairShareState
    needs_idle: bool = False  # an overdue job must run alone: nothing of any model is claimed before it does


def plan(waiting: Sequence[PendingJob], turns: FairShareState, room: Room, now_ms: int, rules: Rules) -> Plan:
    """Chooses the jobs of one model that fill its room.

    A job that another worker died with is taken alone, and only if nothing is in flight.
    """
    lanes: dict[str, dict[int, deque[PendingJob]]] = defaultdict(lambda: defaultdict(deque))
    for job in sorted(waiting, key=lambda job: job.sequence):
        lanes[job.tenant][job.priority.rank].append(job)
    largest = max((job.work for job in waiting), default=0)
    ring = _enter(turns.tenants, lanes, largest)
    overdue_last = {*turns.overdue_last} & lanes.keys()
    chosen: list[str] = []
    free, is_empty, needs_idle = room.free, room.jobs == 0, False
    while lanes and free > 0:
        tenant, ring = _next_turn(ring, lanes.keys(), largest * CREDIT_SHARE)
        firsts = [lane[0] for lane in lanes[tenant].values()]
        overdue = [job for job in firsts if now_ms - job.queued_ms > rules.oldest_wait_ms]
        by_age = bool(overdue) and tenant not in overdue_last
        job = min(overdue, key=lambda job: job.sequence) if by_age else min(firsts, key=lambda job: job.priority.rank)
        was_lost = job.attempts > 0
        fits = is_empty if was_lost else job.cost <= free or free == room.whole > 0
        if fits:
            chosen.append(job.id)
            ring[tenant] -= job.work
            overdue_last = overdue_last | {tenant} if by_age else overdue_last - {tenant}
            turns = FairShareState(ring, tuple(sorted(overdue_last)))
            if was_lost:
                break
            free, is_empty = free - job.cost, False
            lanes[tenant][job.priority.rank].popleft()
        elif job in overdue or ring[tenant] >= largest:
            needs_idle = was_lost
            break
        else:
            lanes[tenant][job.priority.rank].clear()
        if not lanes[tenant][job.priority.rank]:
            del lanes[tenant][job.priority.rank]
        if not lanes[tenant]:
            del lanes[tenant]
    return Plan(tuple(chosen), turns, needs_idle)


def _enter(ring: Mapping[str, float], names: Iterable[str], largest: float) -> dict[str, float]:
    """Returns the ring of those that wait: others leave it, new ones begin at its tail; no credit or debt exceeds
    `largest`.
    """
    waiting = dict.fromkeys(names)
    kept = {name: min(largest, max(-largest, credit)) for name, credit in ring.items() if name in waiting}
    return kept | {name: largest * CREDIT_SHARE for name in waiting if name not in kept}


def _next_turn(ring: Mapping[str, float], among: Set[str], credit: float) -> tuple[str, dict[str, float]]:
    """Finds the one of `among` whose turn it is, and the ring after that choice, by deficit round robin.

    A turn lasts while there is credit left; a name without any is passed over and goes to the tail. A job may overdraw
    what is left. If no one has credit, all get some.
    """
    most = max(ring[name] for name in among)
    while most <= 0:  # whole rounds, until one of them is out of debt; the credit of the others is kept for later
        rounds = math.floor(-most / credit) + 1
        ring = {name: has + rounds * credit for name, has in ring.items()}
        most = max(ring[name] for name in among)
    order = deque(name for name in ring if name in among)
    while ring[order[0]] <= 0:
        order.rotate(-1)
    names = [*(name for name in ring if name not in among), *order]
    return order[0], {name: ring[name] for name in names}
