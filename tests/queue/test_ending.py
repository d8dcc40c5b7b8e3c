"""Jobs that end before they are done: cancelled, or late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.jobs import Job, JobError, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, look

Make = Callable[..., Job]
Connect = Callable[..., Queue]


async def test_a_waiting_job_is_cancelled_at_once(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    waiter = asyncio.create_task(queue.wait("a", 30))
    cancelled = await queue.cancel("a")
    assert cancelled is not None
    assert cancelled.status is JobStatus.CANCELLED
    assert cancelled.completed_at is not None
    assert await waiter == cancelled
    assert await queue.depth(MODEL) == 0
    assert await claim(queue, "w", MODEL, 1, 0) == []
    assert await queue.cancel("a") == cancelled


async def test_a_job_at_work_is_taken_from_its_worker(queue: Queue, make_job: Make) -> None:
    for name in "ab":
        await queue.submit(make_job(name))
    await claim(queue, "w", MODEL, 2, 0)
    async with queue.watch_revocations("a") as revoked:
        await queue.cancel("a")
        assert await revoked.within(10)
    assert await queue.heartbeat("w", {"a": 1, "b": 1}) == ["a"]
    assert not await queue.finish("w", "a", RESULT)
    await queue.release("w", ["a"])
    assert await queue.maintenance.reap() == 0
    assert (await look(queue, "a")).status is JobStatus.CANCELLED
    assert await queue.finish("w", "b", RESULT)


@pytest.mark.parametrize("reason", ["cancelled", "deleted", "expired"])
async def test_the_log_names_why_a_job_left_its_live_worker(
    queue: Queue, make_job: Make, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    await queue.submit(make_job("a"), deadline_s=60 if reason == "expired" else None)
    await claim(queue, "w", MODEL, 1, 0)
    match reason:
        case "cancelled":
            await queue.cancel("a")
        case "deleted":
            await queue.delete("a")
        case "expired":
            await pass_time(queue, 61)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert await queue.heartbeat("w", {"a": 1}) == ["a"]
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("INFO", f"job_withdrawn job=a worker=w reason={reason}")
    ]


async def test_the_log_warns_of_a_job_lost_by_silence(
    hasty: Queue, make_job: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await hasty.submit(make_job("a"))
    await claim(hasty, "w", MODEL, 1, 0)
    await pass_time(hasty, 1)
    await hasty.maintenance.reap()
    caplog.clear()
    assert await hasty.heartbeat("w", {"a": 1}) == ["a"]
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "lease_lost job=a worker=w status=queued")
    ]


async def test_an_ended_job_stays_as_it_is(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    await queue.finish("w", "a", RESULT)
    before = await look(queue, "a")
    assert await queue.cancel("a") == before
    assert await queue.cancel("unknown") is None


async def test_a_worker_hears_of_a_job_it_lost_by_silence(hasty: Queue, make_job: Make) -> None:
    await hasty.submit(make_job("a"))
    await claim(hasty, "w", MODEL, 1, 0)
    await pass_time(hasty, 1)
    async with hasty.watch_revocations("a") as revoked:
        await hasty.maintenance.reap()
        assert await revoked.within(10)


async def test_every_job_has_a_deadline(settings: Settings, make_job: Make, connect: Connect) -> None:
    queue = connect(settings.model_copy(update={"deadline_max_s": 100.0}))
    for name, deadline_s, kept_s in (("a", None, 100), ("b", 7.5, 7.5), ("c", 1000, 100)):
        job = await queue.submit(make_job(name), deadline_s=deadline_s)
        assert job.deadline_at is not None
        assert job.deadline_at - job.created_at == pytest.approx(kept_s)


async def test_a_late_waiting_job_expires(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("late"), deadline_s=60)
    await queue.submit(make_job("a"))
    await pass_time(queue, 61)
    assert await queue.maintenance.expire() == 1
    assert await queue.maintenance.expire() == 0
    job = await look(queue, "late")
    assert job.status is JobStatus.EXPIRED
    assert job.error == JobError("deadline_exceeded", "not done by its deadline")
    assert await queue.depth(MODEL) == 1


async def test_many_late_jobs_and_lost_leases_are_seen_to_at_once(
    queue: Queue, hasty: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.maintenance.ENDED_A_CALL", 2)
    for i in range(5):
        await queue.submit(make_job(f"lost{i}"))
    assert len(await claim(hasty, "w", MODEL, 5, 0)) == 5
    for i in range(5):
        await queue.submit(make_job(f"late{i}"), deadline_s=60)
    await pass_time(queue, 61)
    assert (await queue.maintenance.reap(), await queue.maintenance.expire()) == (5, 5)


async def test_a_late_job_is_taken_from_its_worker(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("late"), deadline_s=60)
    await claim(queue, "w", MODEL, 1, 0)
    async with queue.watch_revocations("late") as revoked:
        await pass_time(queue, 61)
        await queue.maintenance.expire()
        assert await revoked.within(10)
    assert await queue.heartbeat("w", {"late": 1}) == ["late"]


@pytest.mark.parametrize("how", ["look", "claim", "heartbeat", "finish", "cancel", "reap"])
async def test_no_transition_overlooks_a_deadline(queue: Queue, hasty: Queue, make_job: Make, how: str) -> None:
    await queue.submit(make_job("late"), deadline_s=60)
    if how in ("heartbeat", "finish", "reap"):
        assert await claim(hasty, "w", MODEL, 1, 0)
    await pass_time(queue, 61)
    match how:
        case "claim":
            assert await claim(queue, "w", MODEL, 1, 0) == []
        case "heartbeat":
            assert await queue.heartbeat("w", {"late": 1}) == ["late"]
        case "finish":
            assert not await queue.finish("w", "late", RESULT)
        case "cancel":
            await queue.cancel("late")
        case "reap":
            await hasty.maintenance.reap()
    assert (await look(queue, "late")).status is JobStatus.EXPIRED
