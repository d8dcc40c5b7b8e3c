"""What the planner is shown, and that the queue's own books agree whatever happens to its jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.jobs import Job, JobError, Priority
from app.queue.queue import Queue
from app.queue.snapshot import FairShareState, PendingJob
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, assert_consistent
from tests.tiers import one_of_each

Make = Callable[..., Job]
Connect = Callable[..., Queue]


async def test_a_waiting_job_is_shown_as_it_is(queue: Queue, make_job: Make) -> None:
    odd = replace(make_job("a", n=3, guidance_scale=2.0, num_frames=5), tenant='a "b": {c}', priority=Priority.LOW)
    stored = await queue.submit(odd)
    waiting = await queue.snapshot(MODEL)
    [shown] = waiting.jobs
    cost = 3 * 64 * 64 * 5 * 2
    assert shown == PendingJob("a", odd.tenant, Priority.LOW, 1, cost, cost * 2, 0, round(stored.created_at * 1000))
    assert waiting.now_ms >= shown.queued_ms
    assert waiting.turns == FairShareState()
    assert (stored.tenant, stored.priority) == (odd.tenant, odd.priority)


async def test_what_is_shown_is_bounded_and_fair(settings: Settings, make_job: Make, connect: Connect) -> None:
    queue = connect(settings)
    await asyncio.gather(*(queue.submit(replace(make_job(f"x{i}"), tenant="x")) for i in range(300)))
    assert len((await queue.snapshot(MODEL)).jobs) == 256
    for tenant in range(20):
        for rank, priority in enumerate(Priority):
            for number in range(6):
                job = make_job(f"{tenant}-{rank}-{number}")
                await queue.submit(replace(job, tenant=str(tenant), priority=priority))
    seen: set[str] = set()
    for _ in range(6):
        shown = (await queue.snapshot(MODEL)).jobs
        assert len(shown) <= 256
        tenants = {each.tenant for each in shown}
        assert len(tenants) == 16
        # None hides its lower priorities behind the higher.
        assert all(
            {each.priority for each in shown if each.tenant == tenant} == set(Priority) for tenant in tenants - {"x"}
        )
        seen |= tenants
        for name in tenants:  # who was served makes room for others
            first = min((each for each in shown if each.tenant == name), key=lambda each: each.sequence)
            await queue.claim("w", MODEL, [first.id], FairShareState())
    assert seen == {"x", *map(str, range(20))}


async def test_the_first_model_with_waiting_jobs_is_shown(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a", model="second"))
    await queue.submit(make_job("b", model="third"))
    shown = await queue.snapshot("first", "second", "third")
    assert (shown.model, [job.id for job in shown.jobs]) == ("second", ["a"])
    assert (await queue.snapshot("first", MODEL)).model == MODEL


async def test_the_planners_memory_is_kept_by_a_claim_that_got_something(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    turns = FairShareState({"b": -1.5, "a": 2.0}, ("b",))
    assert await queue.claim("w", MODEL, ["unknown"], FairShareState({"z": 1.0})) == []
    assert (await queue.snapshot(MODEL)).turns == FairShareState()
    assert len(await queue.claim("w", MODEL, ["unknown", "a"], turns)) == 1
    found = (await queue.snapshot(MODEL)).turns
    assert found == turns
    assert list(found.tenants) == ["b", "a"]
    assert (await queue.snapshot("other")).turns == FairShareState()


async def test_a_claim_leases_what_still_waits(queue: Queue, make_job: Make) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    assert [each.id for each in await queue.claim("v", MODEL, ["b"], FairShareState())] == ["b"]
    assert [each.id for each in await queue.claim("w", MODEL, ["a", "b", "c"], FairShareState())] == ["a", "c"]


@pytest.mark.parametrize("seed", one_of_each(4, range(4)))
async def test_the_books_agree_whatever_happens(hasty: Queue, make_job: Make, valkey_url: str, seed: int) -> None:
    """Hundreds of transitions at random, lost leases and late jobs among them."""
    chance = random.Random(seed)
    names: list[str] = []
    async with Redis.from_url(valkey_url, decode_responses=True) as redis:
        for number in range(250):
            some = chance.choice(names) if names else "unknown"
            worker = chance.choice("vw")
            match chance.choice(
                ["submit"] * 5
                + ["claim"] * 3
                + ["finish", "fail", "release", "cancel", "delete", "beat", "end", "dead"]
            ):
                case "submit":
                    names.append(f"j{number}")
                    job = make_job(
                        f"j{number}", model=chance.choice("mn"), width=chance.choice([64, 80]), n=chance.choice([1, 3])
                    )
                    job = replace(job, tenant=chance.choice("tu"), priority=chance.choice(list(Priority)))
                    await hasty.submit(job, deadline_s=chance.choice([None, None, 60, 120]))
                case "claim":
                    await claim(hasty, worker, chance.choice(["m", "n"]), 4, 0)
                case "finish":
                    await hasty.finish(worker, some, RESULT)
                case "fail":
                    await hasty.fail(worker, some, JobError("x", "x"))
                case "release":
                    await hasty.release(worker, chance.choices(names, k=3) if names else [])
                case "cancel":
                    await hasty.cancel(some)
                case "delete":
                    await hasty.delete(some)
                case "beat":
                    await hasty.heartbeat(worker, dict.fromkeys(names[-5:], 1))
                case "end":
                    await pass_time(hasty, chance.choice([1, 61]))
                    await hasty.maintenance.reap()
                    await hasty.maintenance.expire()
                case "dead":
                    letters = [each.id for each in await hasty.dead.list()]
                    await chance.choice([hasty.dead.replay, hasty.dead.drop])(["unknown", *letters[:2]])
            if number % 25 == 24:
                await assert_consistent(redis)
        await assert_consistent(redis)
