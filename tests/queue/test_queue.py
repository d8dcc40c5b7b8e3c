"""The queue's transitions on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest
from redis.asyncio import Redis

from app.errors import Conflict, QueueFull
from app.jobs import Guidance, Job, JobError, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, waiting

Make = Callable[..., Job]
Connect = Callable[..., Queue]


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_first_in_first_out(queue: Queue, make_job: Make) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    assert await queue.depth(MODEL) == 3
    claimed = [ids(await claim(queue, "w", MODEL, 1, 0)) for _ in range(4)]
    assert claimed == [["a"], ["b"], ["c"], []]
    assert await queue.depth(MODEL) == 0


async def test_a_job_comes_back_as_it_went_in(queue: Queue, make_job: Make) -> None:
    guidance = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a “red” shape\n")
    sent = make_job("a", nag=guidance, prompt="ü {nag} \x00 '", seed=2**63)
    stored = await queue.submit(sent)
    assert stored.request == sent.request
    assert stored.status is JobStatus.QUEUED
    assert stored.created_at > 0
    assert await queue.get("a") == stored
    assert await queue.get("unknown") is None


async def test_jobs_of_every_kind_are_claimed_together_oldest_first(queue: Queue, make_job: Make) -> None:
    for name, width in [("a", 64), ("b", 128), ("c", 64), ("d", 64), ("e", 128)]:
        await queue.submit(make_job(name, width=width, num_inference_steps=width // 16))
    first = await claim(queue, "w", MODEL, 3, 0)
    assert ids(first) == ["a", "b"]
    assert all((job.status, job.attempts, job.worker) == (JobStatus.IN_PROGRESS, 1, "w") for job in first)
    assert all(job.started_at is not None and job.started_at >= job.created_at for job in first)
    assert ids(await claim(queue, "w", MODEL, 9, 0)) == ["c", "d", "e"]


async def test_the_claim_limit_counts_pictures(queue: Queue, make_job: Make) -> None:
    for name, n in [("a", 3), ("b", 2), ("c", 1), ("d", 9)]:
        await queue.submit(make_job(name, n=n))
    assert ids(await claim(queue, "w", MODEL, 4, 0)) == ["a"]
    assert ids(await claim(queue, "w", MODEL, 4, 0)) == ["b", "c"]
    assert ids(await claim(queue, "w", MODEL, 4, 0)) == ["d"]


async def test_models_have_queues_of_their_own(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await queue.submit(make_job("b", model="other"))
    assert ids(await claim(queue, "w", "other", 8, 0)) == ["b"]
    assert ids(await claim(queue, "w", ["other", MODEL], 8, 0)) == ["a"]


async def test_concurrent_claims_share_nothing(queue: Queue, make_job: Make) -> None:
    await asyncio.gather(*(queue.submit(make_job(str(i))) for i in range(40)))
    claims = await asyncio.gather(*(claim(queue, f"w{i}", MODEL, 3, 0) for i in range(20)))
    assert sorted(each for jobs in claims for each in ids(jobs)) == sorted(map(str, range(40)))


async def test_a_blocked_claim_wakes_for_a_job(queue: Queue, make_job: Make) -> None:
    claiming = asyncio.create_task(claim(queue, "w", MODEL, 1, 30))
    await waiting(queue, 1)
    begin = monotonic()
    await queue.submit(make_job("a"))
    assert ids(await claiming) == ["a"]
    assert monotonic() - begin < 5


async def test_an_empty_claim_returns_at_its_timeout(queue: Queue) -> None:
    assert await claim(queue, "w", MODEL, 1, 0.05) == []


async def test_finish_writes_the_result_once(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    assert not await queue.finish("thief", "a", RESULT)
    assert await queue.finish("w", "a", RESULT)
    assert not await queue.finish("w", "a", RESULT)
    assert not await queue.fail("w", "a", JobError("late", "late"))
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.result, job.error) == (JobStatus.COMPLETED, RESULT, None)
    assert job.completed_at is not None


async def test_fail_keeps_the_error(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    assert await queue.fail("w", "a", JobError("invalid_output", "said"))
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.error) == (JobStatus.FAILED, JobError("invalid_output", "said"))


async def test_heartbeat_extends_notes_the_steps_and_names_what_is_lost(queue: Queue, make_job: Make) -> None:
    for name in "ab":
        await queue.submit(make_job(name))
    await claim(queue, "w", MODEL, 2, 0)
    assert await queue.heartbeat("w", {"a": 2, "b": 7}) == []
    assert await queue.heartbeat("w", {"a": 3, "never": 3}) == ["never"]
    assert await queue.heartbeat("other", {"a": 4}) == ["a"]
    jobs = [await queue.get(name) for name in "ab"]
    assert [job.step for job in jobs if job is not None] == [3, 7]


async def test_an_ended_lease_requeues_at_the_front(hasty: Queue, make_job: Make) -> None:
    for name in "abc":
        await hasty.submit(make_job(name))
    assert ids(await claim(hasty, "lost", MODEL, 2, 0)) == ["a", "b"]
    await pass_time(hasty, 1)
    assert await hasty.maintenance.reap() == 2
    assert await hasty.maintenance.reap() == 0
    job = await hasty.get("a")
    assert job is not None
    assert (job.status, job.attempts, job.worker, job.started_at) == (JobStatus.QUEUED, 1, None, None)
    assert not await hasty.finish("lost", "a", RESULT)
    again = [await claim(hasty, "w", MODEL, 3, 0) for _ in range(3)]
    assert [ids(jobs) for jobs in again] == [["a"], ["b"], ["c"]]  # each lost job alone
    assert [jobs[0].attempts for jobs in again] == [2, 2, 1]


async def test_a_worker_spares_its_own_jobs(hasty: Queue, make_job: Make) -> None:
    for name in "ab":
        await hasty.submit(make_job(name))
        await claim(hasty, f"w-{name}", MODEL, 1, 0)
    await pass_time(hasty, 1)
    assert await hasty.maintenance.reap(["a"]) == 1
    assert await hasty.heartbeat("w-a", {"a": 1}) == []
    assert await hasty.heartbeat("w-b", {"b": 1}) == ["b"]


async def test_a_live_lease_is_not_reaped(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    assert await queue.maintenance.reap() == 0


async def test_a_job_lost_too_often_fails_and_is_a_dead_letter(hasty: Queue, make_job: Make) -> None:
    await hasty.submit(make_job("a"))
    for _ in range(2):
        assert ids(await claim(hasty, "lost", MODEL, 1, 0)) == ["a"]
        await pass_time(hasty, 1)
        assert await hasty.maintenance.reap() == 1
    job = await hasty.get("a")
    assert job is not None
    assert job.error is not None
    assert (job.status, job.error.code, job.attempts) == (JobStatus.FAILED, "worker_lost", 2)
    assert await claim(hasty, "w", MODEL, 1, 0) == []
    assert [each.id for each in await hasty.dead.list()] == ["a"]


async def test_release_hands_back_the_turn_without_an_attempt(queue: Queue, make_job: Make) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    await claim(queue, "w", MODEL, 2, 0)
    await queue.release("other", ["a"])
    assert await queue.depth(MODEL) == 1
    await queue.release("w", ["a", "b"])
    again = await claim(queue, "x", MODEL, 3, 0)
    assert ids(again) == ["a", "b", "c"]
    assert [job.attempts for job in again] == [1, 1, 1]


async def test_fifty_equal_submissions_are_one_job(queue: Queue, make_job: Make) -> None:
    jobs = await asyncio.gather(
        *(queue.submit(make_job(f"j{i}"), idempotency_key="k", fingerprint="f") for i in range(50))
    )
    assert len({job.id for job in jobs}) == 1
    assert await queue.depth(MODEL) == 1


async def test_an_idempotency_key_with_another_request_is_refused(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"), idempotency_key="k", fingerprint="f")
    with pytest.raises(Conflict):
        await queue.submit(make_job("b"), idempotency_key="k", fingerprint="g")
    assert (await queue.submit(make_job("c"), idempotency_key="other", fingerprint="g")).id == "c"


async def test_a_submission_sent_twice_is_stored_once(queue: Queue, make_job: Make) -> None:
    first = await queue.submit(make_job("a"))
    assert await queue.submit(make_job("a")) == first
    assert await queue.depth(MODEL) == 1


async def test_a_full_queue_refuses_with_a_time_to_retry(settings: Settings, make_job: Make, connect: Connect) -> None:
    queue = connect(settings.model_copy(update={"queue_limit": 2}))
    await queue.submit(make_job("a"), idempotency_key="k")
    await queue.submit(make_job("b", model="other"))
    with pytest.raises(QueueFull) as refused:
        await queue.submit(make_job("c"))
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 120
    assert (await queue.submit(make_job("d"), idempotency_key="k")).id == "a"
    await claim(queue, "w", MODEL, 1, 0)
    await queue.submit(make_job("c"))


async def test_wait_wakes_when_the_job_ends(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    waiters = [asyncio.create_task(queue.wait("a", 30)) for _ in range(100)]
    await waiting(queue, 100)
    await claim(queue, "w", MODEL, 1, 0)
    begin = monotonic()
    await queue.finish("w", "a", RESULT)
    jobs = await asyncio.gather(*waiters)
    assert monotonic() - begin < 5
    assert all(job is not None and job.status is JobStatus.COMPLETED for job in jobs)


async def test_wait_returns_the_state_at_its_timeout(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    job = await queue.wait("a", 0.05)
    assert job is not None
    assert job.status is JobStatus.QUEUED
    assert await queue.wait("unknown", 30) is None


async def test_waiters_hold_one_connection_together(queue: Queue, make_job: Make, valkey_url: str) -> None:
    await queue.submit(make_job("a"))
    waiters = [asyncio.create_task(queue.wait("a", 0.5)) for _ in range(50)]
    await waiting(queue, 50)
    async with Redis.from_url(valkey_url, decode_responses=True) as redis:
        while not waiters[0].done():
            assert len(await redis.client_list(_type="pubsub")) == 1
    await asyncio.gather(*waiters)


async def test_a_lost_subscription_is_made_anew(queue: Queue, make_job: Make, valkey_url: str) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    waiter = asyncio.create_task(queue.wait("a", 30))
    await waiting(queue, 1)
    async with Redis.from_url(valkey_url) as redis:
        await redis.client_kill_filter(_type="pubsub")
        await queue.finish("w", "a", RESULT)
    begin = monotonic()
    job = await waiter
    assert monotonic() - begin < 10
    assert job is not None
    assert job.status is JobStatus.COMPLETED


async def test_an_ended_job_and_its_idempotency_key_expire(
    settings: Settings, make_job: Make, connect: Connect
) -> None:
    queue = connect(settings.model_copy(update={"retention_s": 60}))
    await queue.submit(make_job("a"), idempotency_key="k")
    await pass_time(queue, 61)
    assert await queue.get("a") is not None
    await claim(queue, "w", MODEL, 1, 0)
    await queue.finish("w", "a", RESULT)
    await pass_time(queue, 61)
    assert await queue.get("a") is None
    assert (await queue.submit(make_job("b"), idempotency_key="k", fingerprint="other")).id == "b"


async def test_the_registry_of_workers(queue: Queue) -> None:
    assert await queue.registry.workers() == {}
    await queue.registry.announce("a", ["m", "n"], 30)
    await queue.registry.announce("b", [], 3)
    await queue.registry.announce("c", ["m"], 30)
    await pass_time(queue, 4)
    await queue.registry.retire("c")
    assert await queue.registry.workers() == {"a": ["m", "n"]}
    await queue.registry.announce("d", ["m"], 30, serves=["o"])
    assert await queue.registry.served_models() == {"m", "n", "o"}
    await queue.registry.retire("d")


async def test_no_prompt_is_logged(queue: Queue, make_job: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="nag"):
        await queue.submit(make_job("a", prompt="topsecret"))
        await claim(queue, "w", MODEL, 1, 0)
        await queue.finish("w", "a", RESULT)
    events = [each.getMessage().split()[0] for each in caplog.records]
    assert events == ["job_queued", "job_claimed", "job_completed"]
    assert "topsecret" not in caplog.text


async def test_ping(queue: Queue) -> None:
    assert await queue.ping()
