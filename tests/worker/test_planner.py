"""The planner's promises, on queues that hypothesis invents and on whole runs of many rounds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from app.jobs import Priority
from app.queue.waiting import Candidate, Turns, Waiting
from app.worker.planner import CREDIT_SHARE, Plan, Rules, StopReason, plan

BUDGET = 8
RULES = Rules(window_ms=0, oldest_wait_ms=1_000_000)
STEPS = 4
ROUNDS = 24  # of a whole run
limits.register_profile(
    "here", deadline=None, max_examples=50, derandomize=True
)  # the machine's speed is no property of the planner
limits.load_profile("here")


def waits(sequence: int, **changes: Any) -> Candidate:
    """A fresh job of one picture."""
    job = Candidate(f"j{sequence}", "k", "t", Priority.NORMAL, sequence, 1, STEPS, 0, 0)
    changed = job._replace(**changes)
    return changed._replace(work=changed.cost * STEPS)


def choose(waiting: Sequence[Candidate], rules: Rules = RULES, now_ms: int = 0, turns: Turns | None = None) -> Plan:
    return plan(waiting, turns or Turns(), BUDGET, now_ms, rules)


@st.composite
def queues(draw: st.DrawFn, keys: str = "klm", tenants: str = "abc", most: int = 40) -> list[Candidate]:
    size = draw(st.integers(1, most))
    return [
        waits(
            sequence,
            batch_key=draw(st.sampled_from(keys)),
            tenant=draw(st.sampled_from(tenants)),
            priority=draw(st.sampled_from(Priority)),
            cost=draw(st.sampled_from([1, 1, 1, 2, 5, 11])),
            attempts=draw(st.sampled_from([0, 0, 0, 0, 1])),
            queued_ms=sequence,
        )
        for sequence in range(size)
    ]


@st.composite
def memories(draw: st.DrawFn) -> Turns:
    ring = st.dictionaries(st.sampled_from("abcklmz"), st.floats(-1e9, 1e9), max_size=6)
    return Turns(draw(ring), draw(ring), tuple(draw(st.sets(st.sampled_from("abc")))))


def rounds(waiting: Sequence[Candidate], rules: Rules = RULES) -> Iterable[list[Candidate]]:
    """The batches in which this queue is worked off; a round is a millisecond."""
    left, turns, now_ms = {each.id: each for each in waiting}, Turns(), 0
    while left:
        planned = plan(list(left.values()), turns, BUDGET, now_ms, rules)
        turns, now_ms = planned.turns, now_ms + 1
        yield [left.pop(job_id) for job_id in planned.ids]


@given(queues(), memories(), st.integers(0, 100))
def test_a_batch_keeps_to_one_key_and_to_the_budget(waiting: list[Candidate], turns: Turns, now_ms: int) -> None:
    planned = choose(waiting, Rules(window_ms=0, oldest_wait_ms=20), now_ms, turns)
    batch = [next(each for each in waiting if each.id == job_id) for job_id in planned.ids]
    assert batch
    assert len(set(planned.ids)) == len(batch)
    assert len({each.batch_key for each in batch}) == 1
    assert len(batch) == 1 or sum(each.cost for each in batch) <= BUDGET
    assert len(batch) == 1 or all(each.attempts == 0 for each in batch)  # a lost one takes no other with it
    assert (planned.stop is StopReason.ALONE) == (batch[0].attempts > 0 or batch[0].cost > BUDGET)


@given(queues(), memories())
def test_nothing_of_the_key_that_fits_is_left_behind(waiting: list[Candidate], turns: Turns) -> None:
    planned = choose(waiting, turns=turns)
    batch = [each for each in waiting if each.id in planned.ids]
    room = BUDGET - sum(each.cost for each in batch)
    if planned.stop is StopReason.NO_MORE:
        assert all(
            each.attempts > 0 or any(other.attempts > 0 for other in waiting if other.tenant == each.tenant)
            for each in waiting
            if each.batch_key == batch[0].batch_key and each not in batch
        )
    if planned.stop is StopReason.FULL:
        rest = [each for each in waiting if each.batch_key == batch[0].batch_key and each not in batch]
        assert room < max(each.cost for each in [*rest, *batch])


@given(queues(), memories(), st.randoms())
def test_the_plan_depends_on_what_it_is_given_alone(waiting: list[Candidate], turns: Turns, random: Any) -> None:
    shuffled = random.sample(waiting, len(waiting))
    assert choose(waiting, turns=turns) == choose(shuffled, turns=turns)


@given(queues())
def test_a_lane_is_served_in_the_order_it_came(waiting: list[Candidate]) -> None:
    served = [each for batch in rounds(waiting) for each in batch]
    lanes: dict[tuple[str, str, Priority], list[int]] = {}
    for each in served:
        lanes.setdefault((each.tenant, each.batch_key, each.priority), []).append(each.sequence)
    assert all(sequences == sorted(sequences) for sequences in lanes.values())


@given(queues(), memories())
def test_a_tenant_is_led_by_its_highest_priority(waiting: list[Candidate], turns: Turns) -> None:
    planned = choose(waiting, turns=turns)
    leader = next(each for each in waiting if each.id == planned.ids[0])
    assert leader.priority.rank == min(each.priority.rank for each in waiting if each.tenant == leader.tenant)


def test_priorities_go_before_age() -> None:
    waiting = [waits(i, batch_key=str(i), priority=each) for i, each in enumerate(reversed(Priority))]
    assert [batch[0].priority for batch in rounds(waiting)] == list(Priority)


def test_riders_go_by_priority_too() -> None:
    waiting = [waits(i, priority=Priority.LOW) for i in range(10)] + [waits(10, priority=Priority.HIGH)]
    assert choose(waiting).ids[:3] == ("j10", "j0", "j1")


@given(queues(most=60))
def test_every_job_is_served_and_no_round_is_lost(waiting: list[Candidate]) -> None:
    served = [each.id for batch in rounds(waiting) for each in batch]
    assert sorted(served) == sorted(each.id for each in waiting)


@given(st.integers(1, 6), st.sampled_from([1, 3, 8, 11]), st.integers(0, 3))
def test_a_job_waits_no_longer_than_the_cap_and_its_turn(tenants: int, cost: int, low: int) -> None:
    """Every tenant sends a job of high priority and a key of its own, every round; one low job waits beside them."""
    cap = 20
    waiting = {"low": waits(low, tenant="0", priority=Priority.LOW)._replace(id="low")}
    turns = Turns()
    for now_ms in range(cap + 40 * tenants):
        for each in range(tenants):
            sequence = 10 + now_ms * tenants + each
            job = waits(sequence, tenant=str(each), batch_key=f"k{each}", priority=Priority.HIGH, cost=cost)
            waiting[job.id] = job._replace(queued_ms=now_ms)
        planned = plan(list(waiting.values()), turns, BUDGET, now_ms, Rules(window_ms=0, oldest_wait_ms=cap))
        turns = planned.turns
        for job_id in planned.ids:
            del waiting[job_id]
        if "low" not in waiting:
            assert now_ms >= cap or tenants == 1
            return
    pytest.fail("starved")


def test_when_all_have_waited_too_long_priorities_still_count() -> None:
    """Only every second batch goes by age: else an overloaded queue would know no priorities."""
    waiting = [waits(i, batch_key=str(i)) for i in range(10)]
    waiting += [waits(i, batch_key=str(i), priority=Priority.HIGH) for i in range(10, 20)]
    order = [batch[0].priority for batch in rounds(waiting, Rules(window_ms=0, oldest_wait_ms=-1))]
    assert order[:4] == [Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH]


@given(st.integers(2, 5), st.lists(st.sampled_from([1, 2, 8, 11]), min_size=5, max_size=5))
def test_tenants_get_equal_work_whatever_they_send(tenants: int, costs: list[int]) -> None:
    """Each has its own key and job size and never runs dry; none is further ahead than a turn and its largest batch."""
    waiting = [
        waits(i * tenants + each, tenant=str(each), batch_key=f"k{each}", cost=costs[each])
        for i in range(ROUNDS * BUDGET)
        for each in range(tenants)
    ]
    largest = max(BUDGET, *costs[:tenants]) * STEPS
    work: Counter[str] = Counter({str(each): 0 for each in range(tenants)})
    for number, batch in enumerate(rounds(waiting)):
        if number == ROUNDS:
            break
        for each in batch:
            work[each.tenant] += each.work
        assert max(work.values()) - min(work.values()) <= largest * (1 + CREDIT_SHARE) * 2


@given(st.integers(2, 5), st.lists(st.sampled_from([1, 2, 8, 11]), min_size=5, max_size=5))
def test_batch_keys_of_one_tenant_get_equal_work(keys: int, costs: list[int]) -> None:
    waiting = [
        waits(i * keys + each, batch_key=f"k{each}", cost=costs[each])
        for i in range(ROUNDS * BUDGET)
        for each in range(keys)
    ]
    largest = max(BUDGET, *costs[:keys]) * STEPS
    work: Counter[str] = Counter({f"k{each}": 0 for each in range(keys)})
    for number, batch in enumerate(rounds(waiting)):
        if number == ROUNDS:
            break
        for each in batch:
            work[each.batch_key] += each.work
        assert max(work.values()) - min(work.values()) <= largest * (1 + CREDIT_SHARE) * 2


def test_a_rare_key_is_not_behind_a_flood_of_another() -> None:
    flood = [waits(i) for i in range(200)]
    rare = [waits(200 + i, batch_key="rare") for i in range(5)]
    order = [batch[0].batch_key for batch in rounds([*flood, *rare])]
    assert order.index("rare") <= 1


@pytest.mark.parametrize("spread", [1, 50])
def test_a_flooding_tenant_delays_itself_alone(spread: int) -> None:
    """Whether it floods one key or many."""
    flood = [waits(i, tenant="flood", batch_key=f"k{i % spread}") for i in range(200)]
    others = [waits(200 + i, tenant=name, batch_key=f"k-{name}") for i, name in enumerate("abc")]
    order = [batch[0].tenant for batch in rounds([*flood, *others])]
    assert set("abc") <= set(order[:5])


def test_tenants_share_a_batch_of_one_key() -> None:
    waiting = [waits(i, tenant="flood") for i in range(100)] + [waits(100 + i, tenant="small") for i in range(3)]
    planned = choose(waiting)
    assert planned.ids == ("j0", "j100", "j1", "j101", "j2", "j102", "j3", "j4")
    credit = BUDGET * STEPS * CREDIT_SHARE
    assert planned.turns.tenants == {
        "flood": credit - 5 * STEPS,
        "small": credit - 3 * STEPS,
    }  # each at its own expense


def test_a_tenant_that_comes_and_goes_gets_no_more_than_its_share() -> None:
    """One job at a time, and the next as soon as that is served: as much work as who always waits, no more."""
    left, turns, work = [waits(i, tenant="steady", batch_key="s") for i in range(8 * 30)], Turns(), Counter[str]()
    for now in range(120):
        serial = waits(5000 + now, tenant="serial", batch_key="x")
        planned = choose([*left, serial], turns=turns)
        turns = planned.turns
        for each in (each for each in [*left, serial] if each.id in planned.ids):
            work[each.tenant] += each.work
        left = [each for each in left if each.id not in planned.ids]
    assert 0.9 <= work["steady"] / work["serial"] <= 1.1


def test_an_old_debt_is_forgiven_beyond_the_largest_batch() -> None:
    turns = Turns(tenants={"a": -1e12, "b": 0.0})
    left = [waits(i, tenant="ab"[i % 2], batch_key="ab"[i % 2], cost=8) for i in range(100)]
    order = []
    while left:
        planned = choose(left, turns=turns)
        turns = planned.turns
        order += [each.tenant for each in left if each.id in planned.ids]
        left = [each for each in left if each.id not in planned.ids]
    assert "a" in order[:3]


def test_what_does_not_fit_ends_its_tenants_part_alone() -> None:
    waiting = [waits(0, cost=5), waits(1, cost=5), waits(2), waits(3, tenant="u"), waits(4, tenant="u", cost=2)]
    assert choose(waiting).ids == ("j0", "j3", "j4")  # j2 would overtake j1
    assert choose(waiting).stop is StopReason.FULL


@pytest.mark.parametrize("changes", [{"cost": 11}, {"attempts": 1}])
def test_alone(changes: dict[str, int]) -> None:
    planned = choose([waits(0, **changes), waits(1)])
    assert (planned.ids, planned.stop) == (("j0",), StopReason.ALONE)


def test_an_empty_queue_leaves_the_memory_as_it_is() -> None:
    turns = Turns({"a": 1.0}, {"k": 2.0}, ("a",))
    assert choose([], turns=turns) == Plan((), StopReason.NO_MORE, 0, turns)


WINDOW = Rules(window_ms=20, oldest_wait_ms=1000)


@pytest.mark.parametrize(
    ("waiting", "now_ms", "hold_ms", "stop"),
    [
        ([waits(0, queued_ms=100)], 105, 15, StopReason.WINDOW),
        ([waits(0, queued_ms=100), waits(1, queued_ms=104)], 105, 15, StopReason.WINDOW),
        ([waits(0, queued_ms=100)], 120, 0, StopReason.WINDOW),
        ([waits(0, queued_ms=100), waits(1, queued_ms=104, batch_key="other")], 105, 0, StopReason.NO_MORE),
        ([waits(0, cost=8, queued_ms=100)], 105, 0, StopReason.FULL),
        ([waits(0, cost=7, queued_ms=100)], 105, 0, StopReason.FULL),
        ([waits(0, attempts=1, queued_ms=100)], 105, 0, StopReason.ALONE),
    ],
)
def test_the_window(waiting: list[Candidate], now_ms: int, hold_ms: int, stop: StopReason) -> None:
    planned = choose(waiting, WINDOW, now_ms)
    assert (planned.hold_ms, planned.stop) == (hold_ms, stop)


@given(queues(), memories())
def test_the_memory_survives_its_way_through_the_queue(waiting: list[Candidate], turns: Turns) -> None:
    after = choose(waiting, turns=turns).turns
    back = Waiting.from_json("m", json.dumps({"now_ms": "1", "lanes": {}, "turns": after.to_json()})).turns
    assert back == after
    assert list(back.tenants) == list(after.tenants)  # a ring: its order counts
