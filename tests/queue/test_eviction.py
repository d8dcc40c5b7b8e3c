"""Keys that the server has dropped: a job whose data is gone ends, and every other one goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.jobs import TENANT, Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.servers import valkey
from tests.queue.support import MODEL, RESULT, assert_consistent, lose

Make = Callable[..., Job]
Connect = Callable[..., Queue]


async def repair_indexes(queue: Queue) -> int:
    """All of a worker's periodic work, once."""
    await queue.maintenance.reap()
    await queue.maintenance.expire()
    await queue.maintenance.forget()
    return await queue.maintenance.repair_indexes()


async def test_a_waiting_job_whose_data_is_gone_stops_nobody(queue: Queue, make_job: Make) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    await queue._redis.delete(queue.keys.job("a"), queue.keys.job("c"))
    assert await queue.get("a") is None
    assert [job.id for job in await claim(queue, "w", MODEL, 3, 1)] == ["b"]
    await queue.finish("w", "b", RESULT)
    await repair_indexes(queue)
    assert await queue.depth(MODEL) == 0
    assert [(load.queued_work, load.held_work) for load in await queue.loads()] == [(0, 0)]
    assert await queue._redis.zcard(queue.keys.DEADLINES) == 0


@pytest.mark.parametrize("index", ["QUEUE", "LANE", "TENANTS"])
async def test_waiting_jobs_are_found_again_without_an_index(queue: Queue, make_job: Make, index: str) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    names = [name async for name in queue._redis.scan_iter(f"{getattr(queue.keys, index)}*")]
    assert await queue._redis.delete(*names) == 1
    assert await repair_indexes(queue) == 0
    await assert_consistent(queue._redis)
    assert [job.id for job in await claim(queue, "w", MODEL, 3, 1)] == ["a", "b", "c"]


async def test_a_running_job_whose_data_is_gone_is_left(queue: Queue, make_job: Make) -> None:
    for name in "ab":
        await queue.submit(make_job(name))
    await claim(queue, "w", MODEL, 2, 0)
    await queue._redis.delete(queue.keys.job("a"))
    assert await queue.heartbeat("w", {"a": 1, "b": 1}) == ["a"]
    assert not await queue.finish("w", "a", RESULT)
    assert await repair_indexes(queue) == 1
    assert await queue._redis.zrange(queue.keys.LEASES, 0, -1) == ["b"]


async def test_a_running_job_whose_lease_is_gone_is_queued_again(hasty: Queue, make_job: Make) -> None:
    await hasty.submit(make_job("a"))
    await claim(hasty, "w", MODEL, 1, 0)
    await hasty._redis.delete(hasty.keys.LEASES)
    await repair_indexes(hasty)
    assert await hasty.maintenance.reap() == 1
    job = await hasty.get("a")
    assert job is not None
    assert job.status is JobStatus.QUEUED


async def test_late_lost_and_dead_jobs_whose_data_is_gone_are_struck_off(hasty: Queue, make_job: Make) -> None:
    await hasty.submit(make_job("dead"))
    await lose(hasty, "dead", 2)
    await hasty.submit(make_job("lost"))
    await claim(hasty, "w", MODEL, 1, 0)
    await hasty.submit(make_job("late"), deadline_s=60)
    await pass_time(hasty, 61)
    await hasty._redis.delete(*(hasty.keys.job(name) for name in ("dead", "lost", "late")))
    await repair_indexes(hasty)
    for name in (hasty.keys.LEASES, hasty.keys.DEADLINES, hasty.keys.queue(MODEL)):
        assert await hasty._redis.zcard(name) == 0
    assert await hasty.dead.list() == []
    assert await hasty.dead.replay(["dead"]) == []
    assert (await hasty.list_jobs(TENANT, 10)).jobs == []
    assert (await hasty.stats()).held == {}


async def test_a_job_whose_data_is_gone_does_not_count_against_its_key(queue: Queue, make_job: Make) -> None:
    for name in "ab":
        await queue.submit(make_job(name), api_key="key", pending_jobs=2)
    await queue._redis.delete(queue.keys.job("a"))
    await queue.submit(make_job("c"), api_key="key", pending_jobs=2)


@pytest.fixture
async def evicting(tmp_path: Path, settings: Settings, connect: Connect) -> AsyncIterator[Queue]:
    """A queue on a server with little memory, which evicts keys."""
    with valkey(tmp_path / "valkey", "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") as server:
        yield connect(settings, server.url)


async def test_on_a_server_that_evicts_every_job_ends(evicting: Queue, make_job: Make) -> None:
    names = [f"job{number}" for number in range(400)]
    for name in names:
        await evicting.submit(make_job(name, prompt="x" * 3000))
    done = 0
    for _ in range(2 * len(names) // 8):
        await repair_indexes(evicting)
        for job in await claim(evicting, "w", MODEL, 8, 0):
            done += await evicting.finish("w", job.id, RESULT)
    left = [await evicting.get(name) for name in names]
    kept = [job for job in left if job is not None]
    assert {job.status for job in kept} == {JobStatus.COMPLETED}
    assert done < len(names)
