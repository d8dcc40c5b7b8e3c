"""What becomes of a job, as those hear it who follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from app.jobs import EventType, Job, JobError, JobEvent
from app.queue.events import EventStream
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.support import MODEL, RESULT, lose

keys = Keys("nag")

Make = Callable[..., Job]


async def told(queue: Queue, job_id: str, after: str | None = None) -> list[JobEvent]:
    """What the stream holds."""
    async with queue.follow(job_id, after) as feed:
        return await feed.next(0)


def types(events: list[JobEvent]) -> list[str]:
    return [event.type.value for event in events]


async def heard(feed: EventStream, until: EventType) -> list[JobEvent]:
    """Everything up to an event of this type."""
    events: list[JobEvent] = []
    async with asyncio.timeout(30):
        while not events or events[-1].type is not until:
            events += await feed.next(30)
    return events


async def test_a_job_tells_its_life(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a", num_inference_steps=4))
    await claim(queue, "w1", MODEL, 1, 0)
    for step in (0, 1, 1, 3):
        await queue.heartbeat("w1", {"a": step})
    await queue.release("w1", ["a"])
    await claim(queue, "w2", MODEL, 1, 0)
    await queue.heartbeat("w2", {"a": 1})
    await queue.finish("w2", "a", RESULT)
    events = await told(queue, "a")
    assert [(event.type.value, event.data) for event in events] == [
        ("queued", {}),
        ("started", {"attempt": 1, "worker": "w1"}),
        ("progress", {"step": 1}),
        ("progress", {"step": 3}),
        ("queued", {}),
        ("started", {"attempt": 1, "worker": "w2"}),
        ("progress", {"step": 1}),
        ("completed", {}),
    ]
    job = await queue.get("a")
    assert job is not None
    assert job.completed_at is not None
    assert 0 <= events[-1].at - job.created_at <= job.completed_at - job.created_at + 0.01


async def test_every_end_is_told(queue: Queue, hasty: Queue, make_job: Make) -> None:
    await queue.submit(make_job("failed"))
    await claim(queue, "w", MODEL, 1, 0)
    await queue.fail("w", "failed", JobError("x", "x"))
    await queue.submit(make_job("cancelled"))
    await queue.cancel("cancelled")
    await queue.submit(make_job("expired"), deadline_s=60)
    await pass_time(queue, 61)
    await queue.maintenance.expire()
    await queue.submit(make_job("lost"))
    await lose(hasty, "lost", 2)
    assert types(await told(queue, "failed")) == ["queued", "started", "failed"]
    assert types(await told(queue, "cancelled")) == ["queued", "cancelled"]
    assert types(await told(queue, "expired")) == ["queued", "expired"]
    assert types(await told(queue, "lost")) == ["queued", "started", "queued", "started", "failed"]
    assert [event.data.get("attempt") for event in await told(queue, "lost")] == [None, 1, None, 2, None]
    await queue.dead.replay(["lost"])
    assert types(await told(queue, "lost"))[-2:] == ["failed", "queued"]


async def test_what_was_told_is_told_again_from_any_event_on(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await claim(queue, "w", MODEL, 1, 0)
    await queue.finish("w", "a", RESULT)
    events = await told(queue, "a")
    for index, event in enumerate(events):
        assert await told(queue, "a", event.id) == events[index + 1 :]


async def test_what_becomes_of_a_job_is_heard_as_it_does(queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    async with queue.follow("a") as one, queue.follow("a") as other:
        assert types(await one.next(30)) == ["queued"]
        following = asyncio.gather(*(heard(each, EventType.COMPLETED) for each in (one, other)))
        await claim(queue, "w", MODEL, 1, 0)
        for step in range(1, 30):
            await queue.heartbeat("w", {"a": step})
        await queue.finish("w", "a", RESULT)
        of_one, of_other = await following
    assert of_other == await told(queue, "a")
    assert of_one == of_other[1:]


async def test_nothing_is_missed_when_the_connection_is_lost(
    queue: Queue, make_job: Make, settings: Settings, valkey_url: str
) -> None:
    await queue.submit(make_job("a"))
    async with queue.follow("a") as follower, Redis.from_url(valkey_url) as redis:
        following = asyncio.create_task(heard(follower, EventType.COMPLETED))
        await claim(queue, "w", MODEL, 1, 0)
        for step in range(1, 40):
            if step % 10 == 0:
                await redis.execute_command("CLIENT KILL TYPE pubsub")
            await queue.heartbeat("w", {"a": step})
        await queue.finish("w", "a", RESULT)
        assert await following == await told(queue, "a")


async def test_a_slow_listener_reads_what_it_could_not_hear(
    queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.queue.events.BUFFERED_MOST", 3)
    await queue.submit(make_job("a"))
    async with queue.follow("a") as slow, queue.follow("a") as quick:
        assert types(await slow.next(0)) == ["queued"]
        await claim(queue, "w", MODEL, 1, 0)
        await heard(slow, EventType.STARTED)  # so its subscription stands
        following = asyncio.create_task(heard(quick, EventType.COMPLETED))
        for step in range(1, 20):
            await queue.heartbeat("w", {"a": step})
        await queue.finish("w", "a", RESULT)
        await following
        assert await slow.next(0) == (await told(queue, "a"))[2:]


async def test_a_job_that_nobody_follows_is_not_listened_to(queue: Queue, make_job: Make, valkey_url: str) -> None:
    async with Redis.from_url(valkey_url, decode_responses=True) as redis:

        async def listened(count: int) -> None:
            async with asyncio.timeout(30):
                while len(await redis.pubsub_channels(f"{keys.EVENTS}*")) != count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        async with queue.follow("a", None):
            async with queue.follow("a", None), queue.follow("b", None):
                await listened(2)
            await listened(1)
        await listened(0)


async def test_events_are_bounded_and_end_with_their_job(queue: Queue, make_job: Make, valkey_url: str) -> None:
    async with Redis.from_url(valkey_url) as redis:
        await queue.submit(make_job("a"))
        await claim(queue, "w", MODEL, 1, 0)
        for step in range(1, 1010):
            await queue.heartbeat("w", {"a": step})
        assert await redis.xlen(keys.events("a")) == 1000
        assert await redis.pttl(keys.events("a")) == -1
        await queue.finish("w", "a", RESULT)
        assert await redis.xlen(keys.events("a")) == 1000
        left_ms = [await redis.pttl(each) for each in (keys.events("a"), keys.job("a"))]
        assert abs(left_ms[1] - left_ms[0]) <= 1000
        assert left_ms[0] > 0
