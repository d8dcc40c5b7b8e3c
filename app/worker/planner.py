"""Which waiting jobs make the next batch: a pure decision, so without a clock and without I/O.

Three questions, in this order. Whose turn is it? Tenants take turns by deficit round-robin in units of work, so that
one who floods the queue delays itself. Which of the tenant's jobs leads? The oldest of its highest priority, from the
batch key whose turn it is, by the same round-robin; but at least every second turn the job that has waited too long,
if there is one, so that nothing starves. What rides along? Jobs of the leader's key, from all tenants in turn, each at
its tenant's expense, while the budget lasts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from app.queue.waiting import Candidate, Turns

__all__ = ["Plan", "Rules", "StopReason", "plan"]

#: A turn's credit as a share of the largest batch's work: smaller is finer, and this many rounds pay the largest debt.
CREDIT_SHARE = 1 / 16


class StopReason(StrEnum):
    """Why a batch grew no further."""

    FULL = "full"  # the next job of its key would not fit
    WINDOW = "window"  # none of its key came in time
    NO_MORE = "no_more"  # none of its key waits, and holding it open would delay others, or is not wanted
    ALONE = "alone"  # its one job takes no other with it: it was lost before, or exceeds the budget by itself


@dataclass(frozen=True)
class Rules:
    """What an operator sets."""

    window_ms: int  # a batch with room left waits so long for more of its key, since its oldest job came in
    oldest_wait_ms: int  # a job that has waited longer goes before its tenant's others


@dataclass(frozen=True)
class Plan:
    """A batch, in the order it was chosen. `hold_ms` above 0: look again then, or when a job comes in."""

    ids: tuple[str, ...]
    stop: StopReason
    hold_ms: int
    turns: Turns


def plan(waiting: Sequence[Candidate], turns: Turns, budget: int, now_ms: int, rules: Rules) -> Plan:
    """The next batch from the jobs of one model, and whose turn it is after it; empty where none waits.

    `budget` is in units of Generation.cost; a job that exceeds it is taken alone.
    """
    if not waiting:
        return Plan((), StopReason.NO_MORE, 0, turns)
    waiting = sorted(waiting, key=lambda each: each.sequence)
    largest = max(each.work * max(1.0, budget / each.cost) for each in waiting)
    credit = largest * CREDIT_SHARE

    tenants = _ring(turns.tenants, (each.tenant for each in waiting), largest)
    batch_keys = _ring(turns.batch_keys, (each.batch_key for each in waiting), largest)
    tenant, tenants = _turn(tenants, set(tenants), credit)
    mine = [each for each in waiting if each.tenant == tenant]
    overdue = [each for each in mine if now_ms - each.queued_ms > rules.oldest_wait_ms]
    overdue_last = {*turns.overdue_last} & tenants.keys()
    if overdue and tenant not in overdue_last:
        leader = overdue[0]
        overdue_last.add(tenant)
    else:
        first = min(each.priority.rank for each in mine)
        ahead = [each for each in mine if each.priority.rank == first]
        batch_key, batch_keys = _turn(batch_keys, {each.batch_key for each in ahead}, credit)
        leader = next(each for each in ahead if each.batch_key == batch_key)
        overdue_last.discard(tenant)

    batch, stop = _fill(leader, waiting, tenants, budget)
    hold_ms = 0
    if stop is StopReason.NO_MORE and rules.window_ms and all(each.batch_key == leader.batch_key for each in waiting):
        hold_ms = max(0, min(each.queued_ms for each in batch) + rules.window_ms - now_ms)
        stop = StopReason.WINDOW
    for each in batch:
        tenants[each.tenant] -= each.work
        batch_keys[each.batch_key] -= each.work
    after = Turns(tenants, batch_keys, tuple(sorted(overdue_last)))
    return Plan(tuple(each.id for each in batch), stop, hold_ms, after)


def _ring(ring: Mapping[str, float], names: Iterable[str], largest: float) -> dict[str, float]:
    """The ring of those that wait: others leave it, the new begin at its tail; no debt exceeds the largest batch."""
    waiting = dict.fromkeys(names)
    kept = {name: max(-largest, left) for name, left in ring.items() if name in waiting}
    return kept | {name: largest * CREDIT_SHARE for name in waiting if name not in kept}


def _turn(ring: Mapping[str, float], among: Set[str], credit: float) -> tuple[str, dict[str, float]]:
    """Deficit round-robin: the one of `among` whose turn it is, and the ring after that choice.

    A turn lasts while there is credit left; who has none is passed over, gets `credit` and goes to the tail. A batch
    may overdraw what is left: that debt is paid by being passed over.
    """
    left = {name: each for name, each in ring.items() if name in among}
    # Whole rounds in which nobody comes out of debt, at once.
    rounds = min(0 if each > 0 else math.floor(-each / credit) for each in left.values())
    left = {name: each + rounds * credit for name, each in left.items()}
    order = deque(left)
    while left[order[0]] <= 0:
        left[order[0]] += credit
        order.rotate(-1)
    others = {name: each for name, each in ring.items() if name not in among}
    return order[0], others | {name: left[name] for name in order}


def _fill(
    leader: Candidate, waiting: Sequence[Candidate], tenants: Iterable[str], budget: int
) -> tuple[list[Candidate], StopReason]:
    """The leader's batch: its key's jobs, one of each tenant in turn, each tenant's by priority and age.

    A tenant's job that does not fit ends that tenant's part: none is overtaken in its lane.
    """
    if leader.attempts > 0 or leader.cost > budget:
        return [leader], StopReason.ALONE
    lines: dict[str, deque[Candidate]] = {tenant: deque() for tenant in tenants}
    for each in sorted(waiting, key=lambda each: (each.priority.rank, each.sequence)):
        if each.batch_key == leader.batch_key and each is not leader:
            lines[each.tenant].append(each)
    batch, room, full = [leader], budget - leader.cost, False
    lines[leader.tenant] = lines.pop(leader.tenant)  # it has had its first
    while lines:
        for tenant, line in list(lines.items()):
            if not line or line[0].attempts > 0 or line[0].cost > room:
                full = full or bool(line and line[0].attempts == 0)
                del lines[tenant]
                continue
            batch.append(line.popleft())
            room -= batch[-1].cost
    full = full or room < min(each.cost for each in batch)  # the least that is likely to come
    return batch, StopReason.FULL if full else StopReason.NO_MORE
