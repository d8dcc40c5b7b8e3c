"""The planner's promises, on queues that hypothesis invents and on whole runs of many claims."""

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
from app.queue.snapshot import FairShareState, PendingJob, QueueSnapshot
from app.worker.jobs.planner import CREDIT_SHARE, Plan, Rules, plan
from app.worker.protocol import Room

WHOLE = 8
IDLE = Room(WHOLE, WHOLE, 0)
RULES = Rules(oldest_wait_ms=1_000_000)
STEPS = 4
CLAIMS = 40  # of a whole run
limits.register_profile(
    "here", deadline=None, max_examples=50, derandomize=True
)  # the machine's speed is no property of the planner
limits.load_profile("here")


def waits(sequence: int, **changes: Any) -> PendingJob:
    """A fresh job of one image."""
    job = PendingJob(f"j{sequence}", "t", Priority.NORMAL, sequence, 1, STEPS, 0, 0)
    changed = job._replace(**changes)
    return changed if "work" in changes else changed._replace(work=changed.cost * STEPS)


def choose(
    waiting: Sequence[PendingJob],
    room: Room = IDLE,
    rules: Rules = RULES,
    now_ms: int = 0,
    turns: FairShareState | None = None,
) -> Plan:
    return plan(waiting, turns or FairShareState(), room, now_ms, rules)


@st.composite
def queues(draw: st.DrawFn, tenants: str = "abc", most: int = 40) -> list[PendingJob]:
    size = draw(st.integers(1, most))
    return [
        waits(
            sequence,
            tenant=draw(st.sampled_from(tenants)),
            priority=draw(st.sampled_from(Priority)),
            cost=draw(st.sampled_from([1, 1, 1, 2, 5, 11])),
            work=draw(st.sampled_from([1, 4, 50])),
            attempts=draw(st.sampled_from([0, 0, 0, 0, 1])),
            queued_ms=sequence,
        )
        for sequence in range(size)
    ]


@st.composite
def memories(draw: st.DrawFn) -> FairShareState:
    ring = st.dictionaries(st.sampled_from("abcz"), st.floats(-1e9, 1e9), max_size=4)
    return FairShareState(draw(ring), tuple(draw(st.sets(st.sampled_from("abc")))))


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    """Idle, or with jobs in flight: of this model, or of others alone."""
    free = draw(st.integers(0, WHOLE))
    jobs = draw(st.integers(0 if free == WHOLE else 1, 9))
    return Room(free, WHOLE, jobs)


def claims(waiting: Sequence[PendingJob], rules: Rules = RULES, concurrent: bool = False) -> Iterable[list[PendingJob]]:
    """The claims by which one worker works this queue off, a millisecond apart.

    Before each, everything in flight has ended, or with `concurrent` the job that began first.
    """
    left, turns, now_ms, running = {job.id: job for job in waiting}, FairShareState(), 0, list[PendingJob]()
    while left:
        running = running[1:] if concurrent else []
        lost = any(job.attempts for job in running)
        free = 0 if lost else WHOLE - sum(job.cost for job in running)
        planned = plan(list(left.values()), turns, Room(free, WHOLE, len(running)), now_ms, rules)
        turns, now_ms = planned.turns, now_ms + 1
        claimed = [left.pop(job_id) for job_id in planned.ids]
        assert claimed or running  # an idle worker finds something
        running += claimed
        if claimed:
            yield claimed


@given(queues(), memories(), rooms(), st.integers(0, 100))
def test_a_claim_keeps_to_the_room(waiting: list[PendingJob], turns: FairShareState, room: Room, now_ms: int) -> None:
    planned = choose(waiting, room, Rules(oldest_wait_ms=20), now_ms, turns)
    jobs = [next(job for job in waiting if job.id == job_id) for job_id in planned.ids]
    assert len(set(planned.ids)) == len(jobs)
    if any(job.attempts for job in jobs):
        assert (len(jobs), room.jobs) == (1, 0)
    elif any(job.cost > WHOLE for job in jobs):
        assert (len(jobs), room.free) == (1, WHOLE)
    else:
        assert sum(job.cost for job in jobs) <= room.free
    assert jobs or room.jobs  # an idle worker always finds a job


@given(queues(), rooms())
def test_no_lane_is_left_whose_next_job_fits(waiting: list[PendingJob], room: Room) -> None:
    """Unless a tenant is far behind the others."""
    waiting = [job._replace(work=WHOLE * STEPS) for job in waiting[:12]]
    planned = choose(waiting, room)
    chosen = [job for job in waiting if job.id in planned.ids]
    free = room.free - sum(job.cost for job in chosen)
    firsts: dict[tuple[str, Priority], PendingJob] = {}
    for job in waiting:
        if job not in chosen:
            firsts.setdefault((job.tenant, job.priority), job)
    if not any(job.attempts for job in chosen):
        assert all(job.attempts or job.cost > free for job in firsts.values())
    assert not planned.needs_idle  # none is overdue


@given(queues(), memories(), rooms(), st.randoms())
def test_the_plan_depends_on_what_it_is_given_alone(
    waiting: list[PendingJob], turns: FairShareState, room: Room, random: Any
) -> None:
    shuffled = random.sample(waiting, len(waiting))
    assert choose(waiting, room, turns=turns) == choose(shuffled, room, turns=turns)


@given(queues(), st.booleans(), st.sampled_from([5, 1_000_000]))
def test_a_lane_is_served_in_the_order_it_came(waiting: list[PendingJob], concurrent: bool, cap_ms: int) -> None:
    served = [job for jobs in claims(waiting, Rules(cap_ms), concurrent) for job in jobs]
    lanes: dict[tuple[str, Priority], list[int]] = {}
    for job in served:
        lanes.setdefault((job.tenant, job.priority), []).append(job.sequence)
    assert all(sequences == sorted(sequences) for sequences in lanes.values())


@given(queues(), memories())
def test_a_tenant_is_led_by_its_highest_priority(waiting: list[PendingJob], turns: FairShareState) -> None:
    planned = choose(waiting, turns=turns)
    leader = next(job for job in waiting if job.id == planned.ids[0])
    assert leader.priority.rank == min(job.priority.rank for job in waiting if job.tenant == leader.tenant)


def test_priorities_go_before_age() -> None:
    waiting = [waits(i, cost=8, priority=priority) for i, priority in enumerate(reversed(Priority))]
    assert [jobs[0].priority for jobs in claims(waiting)] == list(Priority)


@given(queues(most=60), st.booleans(), st.sampled_from([5, 1_000_000]))
def test_every_job_is_served(waiting: list[PendingJob], concurrent: bool, cap_ms: int) -> None:
    served = [job.id for jobs in claims(waiting, Rules(cap_ms), concurrent) for job in jobs]
    assert sorted(served) == sorted(job.id for job in waiting)


@given(
    st.integers(1, 6), st.sampled_from([1, 3, 8, 11]), st.sampled_from([1, 3, 8, 11]), st.integers(0, 1), st.booleans()
)
def test_a_job_waits_no_longer_than_the_cap_and_its_turn(
    tenants: int, cost: int, low_cost: int, attempts: int, concurrent: bool
) -> None:
    """Every tenant sends a job of high priority at every claim; one low job waits beside them."""
    cap = 20
    low = waits(0, tenant="0", priority=Priority.LOW, cost=low_cost, attempts=attempts)._replace(id="low")
    waiting = {"low": low}
    running: list[PendingJob] = []
    turns = FairShareState()
    for now_ms in range(cap + 100 * tenants):
        for tenant in range(tenants):
            job = waits(10 + now_ms * tenants + tenant, tenant=str(tenant), priority=Priority.HIGH, cost=cost)
            waiting[job.id] = job._replace(queued_ms=now_ms)
        running = running[1:] if concurrent else []
        room = Room(WHOLE - sum(job.cost for job in running), WHOLE, len(running))
        planned = plan(list(waiting.values()), turns, room, now_ms, Rules(oldest_wait_ms=cap))
        turns = planned.turns
        running += [waiting.pop(job_id) for job_id in planned.ids]
        if "low" not in waiting:
            return
    pytest.fail("starved")


def test_when_all_have_waited_too_long_priorities_still_count() -> None:
    """Only every second job goes by age: else an overloaded queue would know no priorities."""
    waiting = [waits(i) for i in range(10)]
    waiting += [waits(i, priority=Priority.HIGH) for i in range(10, 20)]
    order = [job.priority for jobs in claims(waiting, Rules(oldest_wait_ms=-1)) for job in jobs]
    assert order[:4] == [Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH]


@limits(max_examples=15)  # each is a whole run
@given(st.integers(2, 5), st.lists(st.sampled_from([1, 2, 8, 11]), min_size=5, max_size=5))
def test_tenants_get_equal_work_whatever_they_send(tenants: int, costs: list[int]) -> None:
    """Each has its own size of job and never runs dry; none is further ahead than a turn and its largest job."""
    waiting = [
        waits(i * tenants + tenant, tenant=str(tenant), cost=costs[tenant])
        for i in range(CLAIMS * WHOLE)
        for tenant in range(tenants)
    ]
    largest = max(WHOLE, *costs[:tenants]) * STEPS
    work: Counter[str] = Counter({str(tenant): 0 for tenant in range(tenants)})
    for number, jobs in enumerate(claims(waiting)):
        if number == CLAIMS:
            break
        for job in jobs:
            work[job.tenant] += job.work
        assert max(work.values()) - min(work.values()) <= largest * (1 + CREDIT_SHARE) * 2


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_flooding_tenant_delays_itself_alone(concurrent: bool) -> None:
    flood = [waits(i, tenant="flood") for i in range(200)]
    others = [waits(200 + i, tenant=name) for i, name in enumerate("abc")]
    order = [job.tenant for jobs in claims([*flood, *others], concurrent=concurrent) for job in jobs]
    assert set("abc") <= set(order[:5])


def test_tenants_share_a_claim() -> None:
    waiting = [waits(i, tenant="flood") for i in range(100)] + [waits(100 + i, tenant="small") for i in range(3)]
    planned = choose(waiting)
    assert set(planned.ids) == {"j0", "j1", "j2", "j3", "j4", "j100", "j101", "j102"}
    assert planned.ids[:2] == ("j0", "j100")


def test_a_tenant_that_comes_and_goes_gets_no_more_than_its_share() -> None:
    """One job at a time, and the next as soon as that is served: as much work as who always waits, no more."""
    left, turns, work = [waits(i, tenant="steady", cost=8) for i in range(120)], FairShareState(), Counter[str]()
    for now in range(120):
        serial = waits(5000 + now, tenant="serial", cost=8)
        planned = choose([*left, serial], turns=turns)
        turns = planned.turns
        for job in (job for job in [*left, serial] if job.id in planned.ids):
            work[job.tenant] += job.work
        left = [job for job in left if job.id not in planned.ids]
    assert 0.9 <= work["steady"] / work["serial"] <= 1.1


def test_an_old_debt_is_forgiven_beyond_the_largest_job() -> None:
    turns = FairShareState(tenants={"a": -1e12, "b": 0.0})
    left = [waits(i, tenant="ab"[i % 2], cost=8) for i in range(100)]
    order = []
    while left:
        planned = choose(left, turns=turns)
        turns = planned.turns
        order += [job.tenant for job in left if job.id in planned.ids]
        left = [job for job in left if job.id not in planned.ids]
    assert "a" in order[:3]


def test_what_does_not_fit_ends_its_lane_alone() -> None:
    waiting = [waits(0, cost=5), waits(1, cost=5), waits(2), waits(3, priority=Priority.LOW), waits(4, tenant="u")]
    assert set(choose(waiting).ids) == {"j0", "j3", "j4"}  # j2 would overtake j1


def test_an_overdue_job_that_does_not_fit_is_waited_for() -> None:
    waiting = [waits(0, cost=5), waits(1, queued_ms=100), waits(2, tenant="u", queued_ms=100)]
    room = Room(4, WHOLE, 1)
    assert choose(waiting, room, Rules(50), 40).ids == ("j2",)
    turns = FairShareState({"t": 1.0, "u": 1.0})
    assert choose(waiting, room, Rules(50), 51, turns) == Plan((), turns)
    assert choose(waiting, Room(5, WHOLE, 1), Rules(50), 51).ids == ("j0",)


def test_a_job_larger_than_the_room_runs_alone_of_its_model() -> None:
    waiting = [waits(0, cost=11), waits(1)]
    assert choose(waiting, Room(WHOLE, WHOLE, 3)).ids == ("j0",)
    assert choose(waiting, Room(WHOLE - 1, WHOLE, 3)).ids == ()
    assert choose(waiting, Room(0, 0, 3)).ids == ()  # the engine makes room for another model


def test_a_lost_job_runs_alone_and_if_overdue_everything_waits_for_it() -> None:
    waiting = [waits(0, attempts=1), waits(1), waits(2, tenant="u", queued_ms=100)]
    assert choose(waiting).ids == ("j0",)
    busy = Room(WHOLE, WHOLE, 1)  # with a job of another model
    assert choose(waiting, busy) == Plan(("j2",), choose(waiting, busy).turns)
    turns = FairShareState({"t": 1.0, "u": 1.0})
    assert choose(waiting, busy, Rules(50), 51, turns) == Plan((), turns, needs_idle=True)


def test_an_empty_queue_leaves_the_memory_as_it_is() -> None:
    turns = FairShareState({"a": 1.0}, ("a",))
    assert choose([], turns=turns) == Plan((), turns)


@given(queues(), memories())
def test_the_memory_survives_its_way_through_the_queue(waiting: list[PendingJob], turns: FairShareState) -> None:
    after = choose(waiting, turns=turns).turns
    data = {"model": "m", "now_ms": "1", "lanes": {}, "turns": after.to_json()}
    back = QueueSnapshot.from_json(json.dumps(data)).turns
    assert back == after
    assert list(back.tenants) == list(after.tenants)  # a ring: its order counts
