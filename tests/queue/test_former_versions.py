"""Jobs that a version with one lane per batch key left waiting: none is lost, and none is seen twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from app.jobs import TENANT, Job
from app.queue.queue import Queue
from tests.claiming import claim
from tests.queue.support import MODEL, assert_consistent

Make = Callable[..., Job]
KEY = "64x64/2/plain"


async def write_as_before(queue: Queue, job_ids: Sequence[str]) -> None:
    """Moves waiting jobs to where that version kept them: a lane for their batch key, and an index of such lanes."""
    redis, keys = queue._redis, queue.keys
    lane = [MODEL, TENANT, "1"]
    for job_id in job_ids:
        sequence = float(await redis.hget(keys.job(job_id), "sequence") or 0)
        await redis.hset(keys.job(job_id), "batch_key", KEY)
        await redis.zrem(keys.LANE + name(lane), job_id)
        await redis.zadd(keys.LANE + name([*lane, KEY]), {job_id: sequence})
        await redis.zadd(keys.FORMER_LANES + name(lane), {KEY: sequence}, nx=True)
    turns = {"tenants": {TENANT: -1.0}, "batch_keys": {KEY: -1.0}, "overdue_last": [TENANT]}
    await redis.hset(keys.TURNS, MODEL, json.dumps(turns))


def name(parts: Sequence[str]) -> str:
    return json.dumps(parts, separators=(",", ":")).replace("/", "\\/")  # as the server's JSON has it


@pytest.fixture
async def upgraded(queue: Queue, make_job: Make) -> Queue:
    """A queue with more waiting jobs of that version than one call mends, and one of this version."""
    before = [f"before{number}" for number in range(250)]
    for job_id in before:
        await queue.submit(make_job(job_id))
    await write_as_before(queue, before)
    await queue.submit(make_job("after"))
    return queue


async def test_the_first_mending_brings_them_all_over(upgraded: Queue) -> None:
    assert await upgraded.maintenance.mend() == 0
    await assert_consistent(upgraded._redis)
    assert [key async for key in upgraded._redis.scan_iter(f"{upgraded.keys.FORMER_LANES}*")] == []
    jobs = await claim(upgraded, "w", MODEL, 300, 0)
    assert [job.id for job in jobs[:3]] == ["before0", "before1", "before2"]
    jobs += await claim(upgraded, "w", MODEL, 300, 0)
    assert len(jobs) == 251


async def test_a_job_that_ends_before_it_is_mended_leaves_nothing(upgraded: Queue) -> None:
    for number in range(250):
        await upgraded.cancel(f"before{number}")
    await assert_consistent(upgraded._redis)
    assert [key async for key in upgraded._redis.scan_iter(f"{upgraded.keys.FORMER_LANES}*")] == []


async def test_a_job_that_another_version_claimed_is_not_shown(upgraded: Queue) -> None:
    await upgraded.maintenance.mend()
    await upgraded._redis.hset(
        upgraded.keys.job("before0"), "status", "in_progress"
    )  # and its lane does not hear of it
    shown = (await upgraded.snapshot(MODEL)).jobs
    assert shown[0].id == "before1"
