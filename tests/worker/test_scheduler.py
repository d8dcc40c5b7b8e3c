"""The scheduler's promises, on calls that hypothesis invents and on simulated devices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs import Priority
from app.worker.engine.scheduler import (
    DANGER,
    MEMORY_S,
    OVERDUE_ROUNDS,
    OVERDUE_S,
    WaitingCall,
    charge_tenants,
    choose_group,
)

NOW = 1_000_000.0
many = settings(deadline=None, max_examples=50, derandomize=True)  # no test of time
few = settings(many, max_examples=15)


def waits(number: int, **changes: Any) -> WaitingCall:
    """A call that was just suspended: the next of ten steps of 0.1 s."""
    call = WaitingCall(number, "flux", 1, 4, "tenant", Priority.NORMAL, None, 1.0, 0.1, NOW)
    return call._replace(**changes)


def ids(calls: Iterable[WaitingCall]) -> list[int]:
    return [call.id for call in calls]


def chosen(*calls: WaitingCall, served_s: Mapping[str, float] | None = None) -> list[int]:
    return ids(choose_group(calls, served_s or {}, NOW))


costs = st.sampled_from([1, 1, 2, 3, 5, 9])  # of 8
tenants = st.sampled_from("abc")
priorities = st.sampled_from(Priority)
step_times = st.floats(0.001, 3)
deadlines = st.none() | st.floats(-5, 60).map(lambda left_s: NOW + left_s)
levels = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 100))


@st.composite
def queues(draw: st.DrawFn, least: int = 1, most: int = 12) -> list[WaitingCall]:
    return [
        waits(
            number,
            group=draw(st.sampled_from("xyz")),
            cost=draw(costs),
            limit=8,
            tenant=draw(tenants),
            priority=draw(priorities),
            deadline_at=draw(deadlines),
            remaining_s=draw(st.sampled_from([0, 0.1, 1, 1.5, 300])),
            step_s=draw(st.sampled_from([0.001, 0.1, 0.7])),
            waiting_since=NOW - draw(st.sampled_from([0, 0.5, 5, 50])),
        )
        for number in range(draw(st.integers(least, most)))
    ]


def is_overdue(call: WaitingCall, waiting: Sequence[WaitingCall], now: float) -> bool:
    return now - call.waiting_since >= OVERDUE_S + OVERDUE_ROUNDS * round_s(call.tenant, waiting)


def round_s(tenant: str, waiting: Sequence[WaitingCall]) -> float:
    asked_s = sum(call.step_s for call in waiting if call.tenant == tenant)
    return len({call.tenant for call in waiting}) * asked_s


# One choice.


@many
@given(queues(least=0), levels)
def test_something_runs_exactly_if_something_waits(waiting: list[WaitingCall], served_s: dict[str, float]) -> None:
    group = choose_group(waiting, served_s, NOW)
    assert bool(group) is bool(waiting)
    assert set(group) <= set(waiting)
    assert len(set(group)) == len(group)


@many
@given(queues(), levels)
def test_a_forward_keeps_to_one_group_and_to_its_limit(waiting: list[WaitingCall], served_s: dict[str, float]) -> None:
    group = choose_group(waiting, served_s, NOW)
    assert len({call.group for call in group}) == 1
    assert len(group) == 1 or sum(call.cost for call in group) <= 8


@many
@given(queues(), levels, st.randoms())
def test_the_order_of_the_input_does_not_matter(
    waiting: list[WaitingCall], served_s: dict[str, float], random: Any
) -> None:
    shuffled = random.sample(waiting, len(waiting))
    assert choose_group(shuffled, served_s, NOW) == choose_group(waiting, served_s, NOW)


@many
@given(queues(), levels)
def test_calls_join_in_the_order_in_which_they_would_lead(
    waiting: list[WaitingCall], served_s: dict[str, float]
) -> None:
    waiting = [call._replace(waiting_since=NOW) for call in waiting]
    known = {call.tenant: served_s.get(call.tenant, 0.0) for call in waiting}
    group = choose_group(waiting, known, NOW)
    assert [known[call.tenant] for call in group] == sorted(known[call.tenant] for call in group)
    for tenant in known:
        ranks = [call.priority.rank for call in group if call.tenant == tenant]
        assert ranks == sorted(ranks)


@many
@given(queues(), levels)
def test_room_that_is_left_is_too_small_for_all_that_are_left(
    waiting: list[WaitingCall], served_s: dict[str, float]
) -> None:
    group = choose_group(waiting, served_s, NOW)
    room = 8 - sum(call.cost for call in group)
    assert all(call.cost > room for call in waiting if call.group == group[0].group and call not in group)


@many
@given(queues(), levels)
def test_calls_of_tenants_that_are_ahead_take_no_room_from_others(
    waiting: list[WaitingCall], served_s: dict[str, float]
) -> None:
    waiting = [call._replace(waiting_since=NOW) for call in waiting]
    known = {call.tenant: served_s.get(call.tenant, 0.0) for call in waiting}
    group = choose_group(waiting, known, NOW)
    assert known[group[0].tenant] == min(known.values())
    for call in waiting:
        if call.group == group[0].group and call not in group:
            before = [other for other in group if known[other.tenant] <= known[call.tenant]]
            assert sum(other.cost for other in before) + call.cost > 8


@many
@given(queues(), levels)
def test_an_overdue_call_leads_if_there_is_one(waiting: list[WaitingCall], served_s: dict[str, float]) -> None:
    leader = choose_group(waiting, served_s, NOW)[0]
    overdue = [call for call in waiting if is_overdue(call, waiting, NOW)]
    if overdue:
        assert leader in overdue
        assert leader.waiting_since == min(call.waiting_since for call in overdue)


def test_the_tenant_that_had_least_leads_whatever_others_ask_for() -> None:
    urgent = waits(1, tenant="a", priority=Priority.HIGH, remaining_s=0.1, deadline_at=NOW + 0.2)
    assert chosen(urgent, waits(2, tenant="b", group="wan"), served_s={"a": 0.2, "b": 0.1}) == [2]


def test_a_new_tenant_with_one_short_request_goes_before_a_flood() -> None:
    flood = [waits(number, tenant="flood", priority=Priority.HIGH) for number in range(50)]
    assert chosen(*flood, waits(99, tenant="new", group="sd"), served_s={"flood": 0.0}) == [99]
    assert chosen(*flood, waits(99, tenant="new", group="sd"), served_s={"flood": 7.0}) == [99]


def test_a_new_tenant_does_not_go_before_one_that_had_less_than_others() -> None:
    calls = [waits(1, tenant="least"), waits(2, tenant="most", group="sd"), waits(3, tenant="new", group="wan")]
    calls[2] = calls[2]._replace(step_s=1.0)
    assert chosen(*calls, served_s={"least": 5.0, "most": 6.0}) == [1]


def test_priority_goes_before_deadline_and_length_within_a_tenant() -> None:
    low = waits(1, priority=Priority.LOW, remaining_s=0.2, deadline_at=NOW + 0.3, group="x")
    normal = waits(2, remaining_s=50.0, group="y")
    high = waits(3, priority=Priority.HIGH, remaining_s=100.0, group="z")
    assert chosen(low, normal, high) == [3]
    assert chosen(low, normal) == [2]


def test_a_deadline_in_danger_goes_before_shorter_requests() -> None:
    short = waits(1, remaining_s=0.2, group="x")

    def leads(slack_s: float) -> bool:
        return chosen(short, waits(2, remaining_s=10.0, deadline_at=NOW + 10 + slack_s, group="y")) == [2]

    assert leads(0.0)
    assert leads(DANGER * 10 - 0.1)
    assert not leads(DANGER * 10 + 0.1)
    assert not leads(-0.1), "it cannot be met any more"


def test_the_most_urgent_deadline_goes_first() -> None:
    calls = [
        waits(number, remaining_s=9.0, deadline_at=NOW + 9 + slack, group=number)
        for number, slack in enumerate([5, 1, 3])
    ]
    assert chosen(*calls) == [1]


def test_a_short_image_goes_before_a_long_video() -> None:
    video = waits(1, group="wan", remaining_s=300.0, step_s=2.0)
    assert chosen(video, waits(2, remaining_s=0.4)) == [2]


def test_requests_of_about_the_same_length_are_ordered_by_group_size_and_age() -> None:
    alone = waits(1, group="x", remaining_s=1.1)
    pair = [waits(2, group="y", remaining_s=1.9), waits(3, group="y", remaining_s=1.2)]
    assert chosen(alone, *pair) == [2, 3]
    assert chosen(pair[1], pair[0], alone) == [2, 3]
    assert chosen(alone, pair[0]) == [1]


def test_all_requests_below_an_eighth_of_a_second_are_equally_short() -> None:
    pair = [waits(2, group="y", remaining_s=0.12), waits(3, group="y", remaining_s=0.1)]
    assert chosen(waits(1, group="x", remaining_s=0.01), *pair) == [2, 3]


def test_a_call_that_exceeds_the_room_does_not_stop_smaller_ones() -> None:
    calls = [waits(1, cost=2), waits(2, cost=3), waits(3, cost=1), waits(4, cost=1), waits(5, cost=1)]
    assert chosen(*calls) == [1, 3, 4]


def test_a_call_above_the_limit_runs_alone() -> None:
    assert chosen(waits(1, cost=9), waits(2)) == [1]


# Charges.


@many
@given(queues(), levels, st.floats(0.001, 30))
def test_a_charge_is_shared_by_cost_and_loses_no_second(
    waiting: list[WaitingCall], served_s: dict[str, float], seconds: float
) -> None:
    served_s = {tenant: ahead / 4 for tenant, ahead in served_s.items()}  # all that are ahead are remembered
    present = {call.tenant for call in waiting}
    group = choose_group(waiting, served_s, NOW)
    charged = charge_tenants(served_s, group, seconds, present)
    least = min((served_s[tenant] for tenant in present if tenant in served_s), default=0.0)
    gained = {tenant: charged[tenant] - served_s.get(tenant, least) for tenant in present}
    total = sum(call.cost for call in group)
    shares = {tenant: sum(call.cost for call in group if call.tenant == tenant) / total for tenant in present}
    assert math.isclose(sum(shares.values()), 1)
    shifts = [gained[tenant] - shares[tenant] * seconds for tenant in present]  # the same for all
    assert max(shifts) - min(shifts) == pytest.approx(0, abs=1e-9)
    assert min(charged[tenant] for tenant in present) == 0


def test_a_tenant_that_arrives_begins_beside_the_least_served() -> None:
    served_s = charge_tenants({"a": 5.0, "b": 8.0}, [waits(1, tenant="b")], 1.0, {"a", "b", "new"})
    assert served_s == {"a": 0.0, "b": 4.0, "new": 0.0}


def test_a_tenant_that_arrives_is_charged_for_its_first_forward() -> None:
    served_s = charge_tenants({"a": 5.0}, [waits(1, tenant="a"), waits(2, tenant="new", cost=3)], 4.0, {"a"})
    assert served_s == {"a": 0.0, "new": 2.0}


def test_a_tenant_that_waits_for_nothing_is_forgotten_once_the_others_have_caught_up() -> None:
    served_s = {"gone": 1.5, "here": 0.0, "idle": 0.0}
    served_s = charge_tenants(served_s, [waits(1, tenant="here")], 1.0, {"here"})
    assert served_s == {"here": 0.0, "gone": 0.5}
    served_s = charge_tenants(served_s, [waits(1, tenant="here")], 1.0, {"here"})
    assert served_s == {"here": 0.0}


def test_a_tenant_is_not_remembered_for_longer_than_a_minute_or_its_last_forward() -> None:
    served_s: dict[str, float] = {}
    for _ in range(500):  # one row of a, seven of b that fill up its forwards
        served_s = charge_tenants(served_s, [waits(1, tenant="a"), waits(2, tenant="b", cost=7)], 1.0, {"a", "b"})
    assert served_s == {"a": 0.0, "b": MEMORY_S}
    assert charge_tenants({"a": 0.0}, [waits(1, tenant="b")], 200.0, {"a"}) == {"a": 0.0, "b": 200.0}


# Whole runs on a simulated device.


@dataclass
class Request:
    call: WaitingCall
    steps: float  # may be infinite
    arrives_at: float = NOW


@dataclass
class Forward:
    begins_at: float
    seconds: float
    waiting: list[WaitingCall]
    group: list[WaitingCall]


@dataclass
class Run:
    """One device that serves requests until they are done or a number of forwards have run."""

    requests: Sequence[Request]
    choose: Callable[[Sequence[WaitingCall], Mapping[str, float], float], list[WaitingCall]] = choose_group
    forward_s: Callable[[Sequence[WaitingCall]], float] = lambda group: max(call.step_s for call in group)
    most: int = 100_000
    forwards: list[Forward] = field(default_factory=list)
    done_at: dict[int, float] = field(default_factory=dict)
    used_s: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        now, served_s = NOW, dict[str, float]()
        steps = {request.call.id: request.steps for request in self.requests}
        coming = sorted(self.requests, key=lambda request: (request.arrives_at, request.call.id))
        waiting: list[WaitingCall] = []
        while (coming or waiting) and len(self.forwards) < self.most:
            if not waiting:
                now = max(now, coming[0].arrives_at)
            while coming and coming[0].arrives_at <= now:
                request = coming.pop(0)
                waiting.append(request.call._replace(waiting_since=request.arrives_at))
            group = self.choose(waiting, served_s, now)
            seconds = self.forward_s(group)
            self.forwards.append(Forward(now, seconds, list(waiting), group))
            now += seconds
            served_s = charge_tenants(served_s, group, seconds, {call.tenant for call in waiting})
            for call in group:
                self.used_s[call.tenant] += seconds * call.cost / sum(other.cost for other in group)  # type: ignore[assignment]
                waiting.remove(call)
                steps[call.id] -= 1
                if steps[call.id]:
                    remaining_s = min(call.remaining_s, steps[call.id] * call.step_s)
                    waiting.append(call._replace(waiting_since=now, remaining_s=remaining_s))
                else:
                    self.done_at[call.id] = now

    def check_bound(self) -> None:
        """Every wait, ended or not, is within the bound that the scheduler's docstring states."""
        longest_s = max(forward.seconds for forward in self.forwards)
        rounds: dict[tuple[int, float], float] = {}
        before: dict[tuple[int, float], int] = {}
        for forward in self.forwards:
            by_tenant = {call.tenant: round_s(call.tenant, forward.waiting) for call in forward.waiting}
            for call in forward.waiting:
                wait = (call.id, call.waiting_since)
                older = sum(other.waiting_since <= call.waiting_since for other in forward.waiting) - 1
                before.setdefault(wait, older)
                rounds[wait] = max(rounds.get(wait, 0.0), by_tenant[call.tenant])
                bound = OVERDUE_S + OVERDUE_ROUNDS * rounds[wait] + (1 + before[wait]) * longest_s
                assert forward.begins_at - call.waiting_since <= bound + 1e-6


@st.composite
def adversaries(draw: st.DrawFn) -> list[Request]:
    """A long request of low priority, and what comes to go before it: short, urgent, of its tenant or of new ones."""
    victim = waits(0, group="v", limit=8, tenant="victim", priority=Priority.LOW, remaining_s=1e4, step_s=0.1)
    requests = [Request(victim, math.inf)]
    for number in range(1, draw(st.integers(10, 40))):
        call = waits(
            number,
            group=draw(st.sampled_from(["x", "y", "v"])),
            cost=draw(costs),
            limit=8,
            tenant=draw(st.sampled_from(["victim", "flood", f"new {number}"])),
            priority=draw(priorities),
            deadline_at=NOW + draw(st.floats(0, 60)),
            remaining_s=draw(st.floats(0, 2)),
            step_s=draw(st.floats(0.001, 0.2)),
        )
        requests.append(Request(call, draw(st.sampled_from([1, 2, 30])), NOW + draw(st.floats(0, 20))))
    return requests


@few
@given(adversaries(), st.lists(st.floats(0.01, 2), min_size=1, max_size=20))
def test_no_call_waits_longer_than_the_bound(requests: list[Request], durations: list[float]) -> None:
    count = iter(range(1_000_000))
    run = Run(requests, forward_s=lambda _: durations[next(count) % len(durations)], most=120)
    run.check_bound()


@pytest.mark.parametrize("tenant", ["victim", "flood"])
def test_a_low_long_request_moves_on_in_an_endless_flood_of_high_short_ones(tenant: str) -> None:
    victim = waits(0, tenant="victim", priority=Priority.LOW, remaining_s=1000.0)
    flood = [
        Request(waits(number, group=number % 7, tenant=tenant, priority=Priority.HIGH), 1, NOW + number * 0.1)
        for number in range(1, 400)
    ]
    run = Run([Request(victim, math.inf), *flood], most=400)
    run.check_bound()
    served = [forward.begins_at for forward in run.forwards if forward.group[0].id == 0]
    assert len(served) >= 5


@many
@given(st.lists(step_times, min_size=2, max_size=2), st.integers(1, 200))
def test_two_tenants_with_endless_work_get_equal_seconds_within_one_forward(times: list[float], most: int) -> None:
    requests = [
        Request(waits(number, group=number, tenant="ab"[number], step_s=times[number]), math.inf) for number in range(2)
    ]
    run = Run(requests, most=most)
    assert abs(run.used_s["a"] - run.used_s["b"]) <= max(times) + 1e-6


@few
@given(st.integers(2, 30), st.integers(1, 4), st.floats(0.05, 0.5))
def test_a_flood_gets_no_more_than_one_round_of_its_calls_ahead(size: int, others: int, step_s: float) -> None:
    """Even though most of its calls are overdue most of the time."""
    names = ["flood"] * size + [f"other {index}" for index in range(others)]
    calls = [waits(number, group=number, tenant=name, step_s=step_s) for number, name in enumerate(names)]
    run = Run([Request(call, math.inf) for call in calls], most=400)
    assert max(run.used_s.values()) - min(run.used_s[name] for name in names) <= (size + 1) * step_s + 1e-6


def mean_latency_s(run: Run, requests: Iterable[Request]) -> float:
    return mean(run.done_at[request.call.id] - request.arrives_at for request in requests)


def first_in_first_out(waiting: Sequence[WaitingCall], served_s: Mapping[str, float], now: float) -> list[WaitingCall]:
    leader = min(waiting, key=lambda call: call.id)
    same = sorted((call for call in waiting if call.group == leader.group), key=lambda call: call.id)
    return same[: leader.limit]


def test_short_requests_beside_long_ones_are_done_sooner_than_first_in_first_out() -> None:
    """At 60 % load: images of 4 steps and 0.4 s, each 2 s; videos of 40 steps and 20 s, each 50 s."""
    videos = [
        Request(waits(25 * number, group="wan", limit=1, remaining_s=20.0, step_s=0.5), 40, NOW + 50 * number)
        for number in range(10)
    ]
    images = [Request(waits(number, remaining_s=0.4), 4, NOW + 2 * number) for number in range(250) if number % 25]
    fifo = Run([*videos, *images], first_in_first_out)
    run = Run([*videos, *images])
    assert len(run.done_at) == len(fifo.done_at) == len(videos) + len(images)
    assert mean_latency_s(run, images) <= 2 * 0.4
    assert mean_latency_s(run, images) <= 0.2 * mean_latency_s(fifo, images)
    assert mean_latency_s(run, videos) <= 1.5 * mean_latency_s(fifo, videos)
