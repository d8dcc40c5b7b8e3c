"""Jobs given up as lost, and what an operator does about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from app.jobs import Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, look, lose

Make = Callable[..., Job]
Connect = Callable[..., Queue]


@pytest.fixture
def forgetful(settings: Settings, connect: Connect) -> Queue:
    """A hasty queue that keeps no ended job for long."""
    changed = settings.model_copy(update={"lease_s": 0.02, "max_attempts": 2, "retention_s": 0.1})
    return connect(changed)


async def test_a_dead_letter_outlives_the_retention_with_its_idempotency_key(forgetful: Queue, make_job: Make) -> None:
    await forgetful.submit(make_job("a"), idempotency_key="k")
    await lose(forgetful, "a", 2)
    await pass_time(forgetful, 1)
    [letter] = await forgetful.dead.list()
    assert letter.id == "a"
    assert letter.error is not None
    assert (letter.status, letter.error.code, letter.attempts) == (JobStatus.FAILED, "worker_lost", 2)
    assert (await forgetful.submit(make_job("b"), idempotency_key="k")).id == "a"


async def test_a_replayed_job_begins_anew_under_its_id(hasty: Queue, make_job: Make) -> None:
    sent = await hasty.submit(make_job("a"), deadline_s=60, idempotency_key="k")
    await lose(hasty, "a", 2)
    assert await hasty.dead.replay(["a", "unknown"]) == ["a"]
    assert await hasty.dead.list() == []
    assert await hasty.dead.replay(["a"]) == []
    job = await look(hasty, "a")
    assert (job.status, job.attempts, job.error, job.completed_at) == (JobStatus.QUEUED, 0, None, None)
    assert sent.deadline_at is not None
    assert job.deadline_at is not None
    assert job.deadline_at > sent.deadline_at
    [held] = await claim(hasty, "w", MODEL, 1, 0)
    assert held.attempts == 1
    assert await hasty.finish("w", "a", RESULT)
    assert (await hasty.submit(make_job("b"), idempotency_key="k")).id == "a"


async def test_a_replayed_job_can_be_lost_again(hasty: Queue, make_job: Make) -> None:
    await hasty.submit(make_job("a"))
    await lose(hasty, "a", 2)
    await hasty.dead.replay(["a"])
    await lose(hasty, "a", 1)
    assert (await look(hasty, "a")).status is JobStatus.QUEUED
    await lose(hasty, "a", 1)
    assert [each.id for each in await hasty.dead.list()] == ["a"]


async def test_a_dropped_letter_is_kept_for_the_retention_alone(forgetful: Queue, make_job: Make) -> None:
    await forgetful.submit(make_job("a"), idempotency_key="k")
    await lose(forgetful, "a", 2)
    assert await forgetful.dead.drop(["unknown", "a"]) == ["a"]
    assert await forgetful.dead.list() == []
    assert (await look(forgetful, "a")).status is JobStatus.FAILED
    await pass_time(forgetful, 1)
    assert await forgetful.get("a") is None
    assert (await forgetful.submit(make_job("b"), idempotency_key="k")).id == "b"


async def test_the_list_is_bounded_and_newest_first(
    hasty: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch, valkey_url: str
) -> None:
    monkeypatch.setattr("app.queue.maintenance.DEAD_KEPT", 2)
    for name in "abc":
        await hasty.submit(make_job(name))
        await lose(hasty, name, 2)
    assert [each.id for each in await hasty.dead.list()] == ["c", "b"]
    async with Redis.from_url(valkey_url) as redis:
        assert await redis.pttl("{nag}:job:a") > 0
        assert await redis.pttl("{nag}:job:b") == -1
