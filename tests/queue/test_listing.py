"""A tenant's jobs in pages, and jobs that are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.errors import InvalidParameter
from app.jobs import TENANT, EventType, Job, JobStatus
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, assert_consistent, lose

keys = Keys("nag")

Make = Callable[..., Job]
Connect = Callable[..., Queue]


async def names(queue: Queue, limit: int = 100, **chosen: object) -> list[str]:
    return [job.id for job in (await queue.list_jobs(TENANT, limit, **chosen)).jobs]  # type: ignore[arg-type]


async def test_pages_are_newest_first_and_leave_none_out(
    queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.queue.LOOKED_AT_A_CALL", 2)
    for name in "abcdefg":
        await queue.submit(make_job(name))
    seen: list[str] = []
    while True:
        page = await queue.list_jobs(TENANT, 3, after=seen[-1] if seen else None)
        seen += [job.id for job in page.jobs]
        if len(seen) == 3:
            await queue.submit(make_job("new"))  # no page after the first shows it
        assert page.has_more == (len(seen) < 7)
        if not page.has_more:
            break
    assert seen == list("gfedcba")
    assert (await queue.list_jobs(TENANT, 8)).has_more is False


async def test_what_is_asked_for_is_listed_alone(queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue.queue.LOOKED_AT_A_CALL", 2)
    for name in "abcdef":
        await queue.submit(make_job(name, model="m" if name < "d" else "n"))
    for name in "ae":
        await queue.cancel(name)
    await queue.submit(make_job("late"), deadline_s=60)
    await pass_time(queue, 61)
    assert await names(queue, status=JobStatus.CANCELLED) == ["e", "a"]
    assert await names(queue, status=JobStatus.QUEUED) == ["f", "d", "c", "b"]
    assert await names(queue, status=JobStatus.EXPIRED) == ["late"]
    assert await names(queue, models=["m"]) == ["c", "b", "a"]
    assert await names(queue, models=["m"], oldest_first=True) == ["a", "b", "c"]
    assert await names(queue, models=["m", "n"], status=JobStatus.CANCELLED) == ["e", "a"]
    assert await names(queue, models=[]) == []
    page = await queue.list_jobs(TENANT, 1, status=JobStatus.CANCELLED)
    assert ([job.id for job in page.jobs], page.has_more) == (["e"], True)


async def test_a_tenant_sees_its_own_alone(queue: Queue, make_job: Make) -> None:
    for name, tenant in (("a", "t"), ("b", "u {nag} \"'"), ("c", "t")):
        await queue.submit(replace(make_job(name), tenant=tenant))
    assert [job.id for job in (await queue.list_jobs("t", 9)).jobs] == ["c", "a"]
    assert [job.id for job in (await queue.list_jobs("u {nag} \"'", 9)).jobs] == ["b"]
    with pytest.raises(InvalidParameter, match="after"):
        await queue.list_jobs("t", 9, after="b")


async def test_a_job_that_is_no_longer_kept_is_forgotten(
    settings: Settings, make_job: Make, valkey_url: str, connect: Connect
) -> None:
    queue = connect(settings.model_copy(update={"retention_s": 60}))
    for name in "ab":
        await queue.submit(make_job(name))
    await queue.cancel("a")
    async with Redis.from_url(valkey_url) as redis:
        assert await queue.get("a") is not None
        await pass_time(queue, 61)
        assert await queue.get("a") is None
        assert await names(queue) == ["b"]
        assert await queue.maintenance.forget() == 1
        assert await redis.zcard(keys.jobs_of(TENANT)) == 1
        assert await redis.zcard(keys.KEPT) == 0


@pytest.mark.parametrize("state", ["queued", "in_progress", "completed", "dead"])
async def test_a_deleted_job_leaves_nothing_behind(
    queue: Queue, hasty: Queue, make_job: Make, valkey_url: str, state: str
) -> None:
    await queue.submit(make_job("other"))
    await queue.cancel("other")
    await queue.submit(make_job("a"), idempotency_key="k", fingerprint="f")
    async with Redis.from_url(valkey_url, decode_responses=True) as redis, queue.follow("a") as feed:
        if state == "dead":
            await lose(hasty, "a", 2)
        elif state != "queued":
            await claim(queue, "w", MODEL, 1, 0)
        if state == "completed":
            await queue.finish("w", "a", RESULT)
        async with queue.watch_revocations("a") as revoked:
            deleted = await queue.delete("a")
            assert state != "in_progress" or await revoked.within(10)
        assert deleted is not None
        ended = {"completed": JobStatus.COMPLETED, "dead": JobStatus.FAILED}
        assert deleted.status is ended.get(state, JobStatus.CANCELLED)
        assert await queue.delete("a") is None
        assert await queue.get("a") is None
        assert await names(queue) == ["other"]
        assert await queue.heartbeat("w", {"a": 1}) == ["a"]
        assert not await queue.finish("w", "a", RESULT)
        await queue.release("w", ["a"])
        assert (await queue.maintenance.reap(), await queue.depth(MODEL), await queue.dead.list()) == (0, 0, [])
        left = [name async for name in redis.scan_iter("*") if "a" in name.removeprefix("{nag}:").split(":")]
        assert left == []
        await assert_consistent(redis)
        if state in ("queued", "in_progress"):  # who follows it hears its end
            async with asyncio.timeout(30):
                while not any(event.type is EventType.CANCELLED for event in await feed.next(30)):
                    pass
        again = await queue.submit(make_job("b"), idempotency_key="k", fingerprint="another")
        assert again.id == "b"
    assert await names(queue, after="a") == ["other"]  # a list that is being read goes on
