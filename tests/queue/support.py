"""What several tests of the queue ask of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.catalog import UploadedLora
from app.jobs import TENANT, AppliedGuidance, Artifact, EventType, Job, JobError, Result, Timings, Webhook
from app.queue import scripts
from app.queue.connection import check_requirements
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.queue.uploads import UploadedFile
from app.settings import Settings
from tests.claiming import claim
from tests.limits import HANG_S
from tests.queue.clock import pass_time

keys = Keys("nag")
SCRIPTS = Path(scripts.__file__).parent

MODEL = "shapes-flux"
RESULT = Result(
    artifacts=(Artifact("a-0.png", "image/png", 3, 7),),
    nag=AppliedGuidance(False, "not_requested"),
    batch_size=1,
    timings=Timings(1.0, 2.0, 3.0, 4.0, 10.0),
    warnings=("said",),
)


def make_lora(name: str = "style", tenant: str | None = TENANT, **fields: Any) -> UploadedLora:
    described: dict[str, Any] = {
        "version": f"{hash((name, tenant)) % 2**64:016x}", "sha256": "0" * 64, "size_bytes": 10, "created_at": 1.0,
        "layers": 1, "rank": 4, "parts": ("transformer",),
    } | fields  # fmt: skip
    return UploadedLora(id=name, tenant=tenant, base=MODEL, **described)


async def look(queue: Queue, job_id: str) -> Job:
    job = await queue.get(job_id)
    assert job is not None
    return job


async def lose(hasty: Queue, job_id: str, times: int, clock: Queue | None = None) -> None:
    """Lets so many workers, one after the other, be lost with this job, which must be next.

    `clock` is connected as a user that may change all times, if `hasty` is not.
    """
    for _ in range(times):
        [job] = await claim(hasty, "lost", MODEL, 1, 0)
        assert job.id == job_id
        await pass_time(clock or hasty, 1)
        assert await hasty.maintenance.reap() == 1


async def waiting(queue: Queue, count: int) -> None:
    """Returns once so many tasks of this process wait for messages of Redis."""
    async with asyncio.timeout(HANG_S):
        while sum(map(len, queue._events._signals.values())) < count:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0)


async def assert_consistent(redis: Redis) -> None:
    """What the queue keeps beside the jobs says the same as the jobs do."""
    jobs: dict[str, Any] = {name: await redis.hgetall(name) async for name in redis.scan_iter(f"{keys.JOB}*")}
    waiting = [each for each in jobs.values() if each["status"] == "queued"]
    held = [each for each in jobs.values() if each["status"] == "in_progress"]
    models = {each["model"] for each in jobs.values()}
    for model in models:
        mine = sorted((each for each in waiting if each["model"] == model), key=lambda each: int(each["sequence"]))
        assert await redis.zrange(keys.QUEUE + model, 0, -1) == [each["id"] for each in mine]
        assert await _number(redis, keys.QUEUED_WORK, model) == sum(int(each["work"]) for each in mine)
        of_model = [each for each in held if each["model"] == model]
        assert await _number(redis, keys.HELD_WORK, model) == sum(int(each["work"]) for each in of_model)
        assert set(await redis.zrange(keys.TENANTS + model, 0, -1)) == {each["tenant"] for each in mine}
    lanes: dict[str, list[str]] = {}
    for each in sorted(waiting, key=lambda each: int(each["sequence"])):
        lanes.setdefault(keys.LANE + _name([each["model"], each["tenant"], each["rank"]]), []).append(each["id"])
    assert {name: await redis.zrange(name, 0, -1) async for name in redis.scan_iter(f"{keys.LANE}*")} == lanes
    assert set(await redis.zrange(keys.LEASES, 0, -1)) == {each["id"] for each in held}
    assert set(await redis.zrange(keys.DEADLINES, 0, -1)) == {each["id"] for each in [*waiting, *held]}
    dead = set(await redis.zrange(keys.DEAD, 0, -1))
    kept = {tuple(json.loads(str(each))) for each in await redis.zrange(keys.KEPT, 0, -1)}
    owners = [name async for name in redis.scan_iter(f"{keys.OWNED}*")]
    owned = {(name.removeprefix(keys.OWNED), each) for name in owners for each in await redis.zrange(name, 0, -1)}
    assert owned == {(each["tenant"], each["id"]) for each in jobs.values()} | kept
    needed = {name async for name in redis.scan_iter(f"{keys.LORA_JOBS}*")}
    assert needed == {keys.LORA_JOBS + use for each in [*waiting, *held] for use in each.get("loras", "").split()}
    for name, each in jobs.items():
        stream = keys.events(each["id"])
        entries: Any = await redis.xrevrange(stream, count=1)
        [(_, told)] = entries
        assert (
            (told["type"] in ("started", "progress"))
            if each["status"] == "in_progress"
            else told["type"] == each["status"]
        )
        assert (await redis.pttl(stream) < 0) == (await redis.pttl(name) < 0)
        ended = each["status"] not in ("queued", "in_progress")
        assert (await redis.pttl(name) >= 0) == (ended and each["id"] not in dead), each
        assert ((each["tenant"], each["id"]) in kept) == (ended and each["id"] not in dead)


async def _number(redis: Redis, name: str, field: str) -> int:
    return int(await redis.hget(name, field) or 0)


def _name(parts: list[str]) -> str:
    return json.dumps(parts, separators=(",", ":")).replace("/", "\\/")  # as the server's JSON has it


async def make_every_transition(
    url: str, settings: Settings, make_job: Callable[..., Job], clock: Queue | None = None
) -> None:
    """Runs each script of the queue, on a server that holds nothing yet, with every argument that the script reads.

    `clock` is connected as a user that may change all times, if that of `url` may not.
    """
    queue = Queue.connect(settings.model_copy(update={"lease_s": 0.02, "max_attempts": 1}), url)
    passed: dict[str, set[str]] = defaultdict(set)
    run = queue._scripts.run

    async def noting(name: str, /, **arguments: object) -> object:
        passed[name] |= arguments.keys()
        return await run(name, **arguments)

    queue._scripts.run = noting  # type: ignore[method-assign]
    await check_requirements(queue._redis, queue._scripts, queue.keys)
    for name in "abcde":
        await queue.submit(make_job(name), idempotency_key=name, api_key="key", pending_jobs=9)
    await queue.registry.announce("w", [MODEL], 30)
    assert len(await claim(queue, "w", MODEL, 3, 0)) == 3
    await queue.heartbeat("w", {"a": 1, "b": 1, "c": 1})
    assert await queue.publish_preview("w", "a", 1, 0, b"x", "image/jpeg")
    await queue.finish("w", "a", RESULT)
    await queue.fail("w", "b", JobError("x", "x"))
    await queue.release("w", ["c"])
    await queue.cancel("c")
    for name in "de":
        await lose(queue, name, 1, clock)
    assert len(await queue.dead.list()) == 2
    assert await queue.dead.replay(["d"]) == ["d"]
    assert await queue.dead.drop(["e"]) == ["e"]
    await queue.maintenance.expire()
    await queue.maintenance.repair_indexes()
    await queue.maintenance.forget()
    await queue.submit(replace(make_job("told"), webhook=Webhook("http://example.com/", (EventType.CANCELLED,))))
    await queue.cancel("told")
    [[delivery], _] = await queue.webhooks.claim(9, {})
    await queue.webhooks.retry(delivery, 1)
    await queue.loras.note_file("v")
    assert await queue.loras.leftovers(-1) == ["v"]
    await queue.loras.forget_file("v")
    await queue.loras.add(make_lora(), most=1, most_bytes=10)
    assert await queue.loras.find(make_lora().use_id) == make_lora()
    assert await queue.loras.visible(TENANT) == [make_lora()]
    await queue.loras.drop(make_lora())
    await queue.sdapi.choose(TENANT, "shapes-sd")
    assert await queue.sdapi.model(TENANT) == "shapes-sd"
    await queue.sdapi.add(TENANT, "job_a")
    assert await queue.sdapi.jobs(TENANT) == ["job_a"]
    await queue.sdapi.drop(TENANT, "job_a")
    assert await queue.sdapi.jobs(TENANT) == []
    file = await queue.files.add(TENANT, UploadedFile("file-a", "a", "a.png", "vision", 1), 60)
    assert await queue.files.find(TENANT, "file-a") == file
    await queue.files.drop(TENANT, "file-a")
    held = await queue.submit(make_job("held"), fingerprint="f", takes_orphan=True)
    assert await queue.mark_orphan(held.id, "t", 60)
    assert await queue.drop_orphan(held.id, "t")
    await queue.delete(held.id)
    assert await queue.delete("told") is not None
    assert len((await queue.list_jobs(TENANT, 10)).jobs) == 5
    assert await queue.delete("b") is not None
    assert await queue.get("a") is not None
    assert [each.queued for each in await queue.loads()] == [1]
    assert (await queue.stats()).dead == 0
    await queue.registry.retire("w")
    assert await queue.registry.workers() == {}
    async with queue.concurrency.hold("key", 1):
        assert (await queue.rate_limiter.take("key", "reads", 2)).remaining == 1
    await queue.close()
    assert passed == {
        name: set(re.findall(r"\bargs\.(\w+)", (SCRIPTS / f"{name}.lua").read_text())) for name in queue._scripts.names
    }
