"""Versions that share a Redis during an upgrade: what is stored keeps its form, and former forms are read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from app.jobs import TENANT, EventType, Job, Priority, Webhook
from app.queue import maintenance
from app.queue.queue import Queue
from tests.claiming import claim
from tests.queue.support import MODEL, assert_consistent

Make = Callable[..., Job]
#: A job as the versions before and after the scripts' arguments had names write it.
STORED = {
    "id": "a",
    "model": "shapes-flux",
    "tenant": "t",
    "rank": "0",
    "cost": "4096",
    "work": "8192",
    "request": (
        '{"model":"shapes-flux","prompt":"é \\"x\\" \\n\u2028","negative_prompt":null,"seed":9007199254740993,'
        '"num_inference_steps":2,"guidance_scale":1.0,"width":64,"height":64,"n":1,"output_format":"png",'
        '"output_compression":100,"nag":null,"num_frames":null,"fps":null,"video_codec":null,"embed_metadata":true,'
        '"previews":0,"inputs":[],"strength":null,"remix_of":null,"strict":false,"loras":[],"alias":null}'
    ),
    "warnings": '["w"]',
    "status": "queued",
    "trace": "00-1-2-01",
    "attempts": "0",
    "step": "0",
    "sequence": "1",
    "api_key": "k",
    "webhook": '{"url":"http://example.com/","events":["completed"]}',
}
KEY = "64x64/2/plain"
BEFORE = 20  # waiting jobs of that version


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


async def test_a_stored_job_keeps_its_form(queue: Queue, make_job: Make) -> None:
    job = replace(
        make_job("a", prompt='é "x" \n\u2028', seed=2**53 + 1), tenant="t", priority=Priority.HIGH, trace="00-1-2-01",
        warnings=("w",), webhook=Webhook("http://example.com/", (EventType.COMPLETED,)),
    )  # fmt: skip
    before_s = time.time()
    stored = await queue.submit(
        job, deadline_s=60, idempotency_key="i", fingerprint="f", api_key="k", pending_jobs=9, takes_orphan=True
    )
    fields = await queue._redis.hgetall(queue.keys.job("a"))
    times = {name: int(fields.pop(name)) for name in ("created_ms", "queued_ms", "deadline_ms")}
    assert fields.pop("idempotency") == queue.keys.idempotency("t", "i")
    assert fields.pop("orphans") == queue.keys.orphans("t", "f")
    assert fields == STORED
    assert times["queued_ms"] == times["created_ms"] == times["deadline_ms"] - 60_000 > before_s * 1000 - 1000
    assert await queue._redis.hgetall(queue.keys.idempotency("t", "i")) == {"job": "a", "fingerprint": "f"}
    assert stored.request == job.request
    await claim(queue, "w", MODEL, 1, 0)
    assert await queue.heartbeat("w", {"a": 1}) == []
    fields = await queue._redis.hgetall(queue.keys.job("a"))
    assert {name: fields[name] for name in ("status", "worker", "attempts", "step")} == {
        "status": "in_progress", "worker": "w", "attempts": "1", "step": "1",
    }  # fmt: skip
    assert await queue._redis.hget(queue.keys.TURNS, MODEL) == '{"tenants":{"t":-7680.0},"overdue_last":[]}'


@pytest.fixture
async def upgraded(queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue with more waiting jobs of that version than one call mends, and one of this version."""
    monkeypatch.setattr(maintenance, "REPAIRED_PER_CALL", BEFORE // 2)
    before = [f"before{number}" for number in range(BEFORE)]
    for job_id in before:
        await queue.submit(make_job(job_id))
    await write_as_before(queue, before)
    await queue.submit(make_job("after"))
    return queue


async def test_the_first_mending_brings_them_all_over(upgraded: Queue) -> None:
    assert await upgraded.maintenance.repair_indexes() == 0
    await assert_consistent(upgraded._redis)
    assert [key async for key in upgraded._redis.scan_iter(f"{upgraded.keys.FORMER_LANES}*")] == []
    jobs = await claim(upgraded, "w", MODEL, 300, 0)
    assert [job.id for job in jobs[:3]] == ["before0", "before1", "before2"]
    jobs += await claim(upgraded, "w", MODEL, 300, 0)
    assert len(jobs) == BEFORE + 1


async def test_a_job_that_ends_before_it_is_mended_leaves_nothing(upgraded: Queue) -> None:
    for number in range(BEFORE):
        await upgraded.cancel(f"before{number}")
    await assert_consistent(upgraded._redis)
    assert [key async for key in upgraded._redis.scan_iter(f"{upgraded.keys.FORMER_LANES}*")] == []


async def test_a_job_that_another_version_claimed_is_not_shown(upgraded: Queue) -> None:
    await upgraded.maintenance.repair_indexes()
    await upgraded._redis.hset(
        upgraded.keys.job("before0"), "status", "in_progress"
    )  # and its lane does not hear of it
    shown = (await upgraded.snapshot(MODEL)).jobs
    assert shown[0].id == "before1"
