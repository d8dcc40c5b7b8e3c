"""Decides which suspended module calls share the next forward: pure functions, without a clock and without I/O.

Each image or video in flight has at most one call that waits. `choose_group` orders the calls that wait:

1. Overdue calls, the one that has waited longest first. They are the guard against starvation.
2. The tenant that is least ahead in device seconds; among equals the one whose waiting calls ask for the fewest.
3. Within the tenant, the higher priority.
4. A deadline in danger, the one with the least slack first. A deadline that cannot be met gains nothing.
5. The request that is sooner done, in powers of two, so that a short one goes before a long one between two steps.
6. The larger group, because its forward finishes more steps.
7. The request that was admitted first.

The first call leads. Calls of its group join it in the same order while the limit lasts.

A round of a tenant is the time in which its waiting calls all run once, each alone, and every other tenant that waits
gets as much of the device. A call is overdue after OVERDUE_S + OVERDUE_ROUNDS rounds of its tenant. Rounds, not steps
of its own, because a tenant with many calls would have overdue ones at all times and go before everybody else.
As it is, overdue calls of one tenant take at most 1 / OVERDUE_ROUNDS of that tenant's share of the device.

Starvation bound: a call begins at the latest OVERDUE_S + OVERDUE_ROUNDS × its tenant's longest round meanwhile after
it was suspended, plus one forward that is then under way, plus one forward for each call that was suspended before it
or at the same moment. Calls that come later, of whatever tenant and priority, do not delay it further.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from app.jobs import Priority

__all__ = ["WaitingCall", "charge_tenants", "choose_group"]

#: Shortest wait after which a call can be overdue. In simulated arrivals, at 1 s overdue calls of videos hold up most
#: other requests if a video is in flight.
OVERDUE_S = 5.0
#: Rounds that a call waits before it is overdue. 1 would give all of the device to overdue calls, 2 gives half of it.
OVERDUE_ROUNDS = 2
#: A deadline is in danger if its slack is smaller than so many times the remaining time: at a third of the device it
#: would just be met.
DANGER = 2
#: Requests that are done sooner than this count as equally short, so that the larger group goes first.
SHORT_S = 0.125
#: Most seconds that a tenant is remembered to be ahead, unless one forward gave it more. Who filled up the forwards of
#: others for an hour does not have to wait for an hour.
MEMORY_S = 60.0

RANKS = {priority: priority.rank for priority in Priority}


class WaitingCall(NamedTuple):
    """A suspended module call of one image or video. Times are Unix seconds."""

    id: int  # unique; rises in the order in which the requests were admitted
    group: Hashable  # calls of equal groups may share a forward
    cost: int  # 1 or more, in units of Generation.cost
    limit: int  # most cost of a forward of this group; a call that exceeds it runs alone
    tenant: str
    priority: Priority
    deadline_at: float | None
    remaining_s: float  # estimated device seconds until the request is done, this call included
    step_s: float  # estimated device seconds of this call alone
    waiting_since: float  # when the call was suspended


def choose_group(waiting: Sequence[WaitingCall], served_s: Mapping[str, float], now: float) -> list[WaitingCall]:
    """Returns the calls of the next forward, the leader first; none only if none waits.

    `served_s` is what `charge_tenants` returned last, at first an empty dict.
    """
    if not waiting:
        return []
    calls = sorted(waiting, key=attrgetter("id"))
    sizes = Counter(call.group for call in calls)
    asked_s: defaultdict[str, float] = defaultdict(float)
    for call in calls:
        asked_s[call.tenant] += call.step_s
    ahead_s = _seconds_by_tenant(served_s, asked_s)
    overdue_since = {  # calls that were suspended by then are overdue
        tenant: now - OVERDUE_S - OVERDUE_ROUNDS * len(asked_s) * seconds for tenant, seconds in asked_s.items()
    }

    def order(call: WaitingCall) -> tuple[float, float, float, int, float, int, int]:
        return (
            call.waiting_since if call.waiting_since <= overdue_since[call.tenant] else math.inf,
            ahead_s[call.tenant],
            asked_s[call.tenant],
            RANKS[call.priority],
            _endangered_slack_s(call, now),
            math.frexp(max(call.remaining_s, SHORT_S))[1],
            -sizes[call.group],
        )  # calls that are equal in all of this keep the order of their ids

    calls.sort(key=order)
    leader = calls[0]
    group, room = [leader], leader.limit - leader.cost
    for call in calls[1:]:
        if call.group == leader.group and call.cost <= room:
            group.append(call)
            room -= call.cost
    return group


def charge_tenants(
    served_s: Mapping[str, float], group: Sequence[WaitingCall], seconds: float, waiting: Collection[str]
) -> dict[str, float]:
    """Returns by how many device seconds each tenant is ahead of the least served one, after a forward.

    Each call of the forward pays its part by cost. `waiting` are the tenants with calls that waited when the group was
    chosen. A tenant that is not ahead is forgotten as soon as it has none: if it comes back, it begins like the least
    served tenant, as a new one does, with neither a claim on the past nor a debt.
    """
    parts: defaultdict[str, float] = defaultdict(float)
    total = sum(call.cost for call in group)
    for call in group:
        parts[call.tenant] += seconds * call.cost / total
    present = {*waiting, *parts}
    ahead_s = {**served_s, **_seconds_by_tenant(served_s, present)}
    for tenant, part in parts.items():
        ahead_s[tenant] += part
    least = min(ahead_s[tenant] for tenant in present)
    return {
        tenant: min(ahead - least, max(MEMORY_S, parts[tenant]))
        for tenant, ahead in ahead_s.items()
        if tenant in present or ahead > least
    }


def _seconds_by_tenant(served_s: Mapping[str, float], tenants: Iterable[str]) -> dict[str, float]:
    """Returns the seconds of each tenant. One that is not known yet begins at the least of those that are."""
    least = min((served_s[tenant] for tenant in tenants if tenant in served_s), default=0.0)
    return {tenant: served_s.get(tenant, least) for tenant in tenants}


def _endangered_slack_s(call: WaitingCall, now: float) -> float:
    """Returns the seconds that the request can still lose before it misses its deadline; infinite unless that is in
    danger.
    """
    if call.deadline_at is None:
        return math.inf
    slack = call.deadline_at - now - call.remaining_s
    return slack if 0 <= slack < DANGER * call.remaining_s else math.inf
