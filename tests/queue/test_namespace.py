"""Two services on one database, each with a namespace of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.errors import RateLimitExceeded
from app.jobs import TENANT, Job
from app.queue.queue import Queue
from app.settings import Settings
from tests.claiming import claim
from tests.queue.support import MODEL, RESULT, make_every_transition

Make = Callable[..., Job]
Connect = Callable[..., Queue]


@pytest.fixture
def neighbour(settings: Settings, connect: Connect) -> Queue:
    return connect(other(settings))


def other(settings: Settings) -> Settings:
    return settings.model_copy(update={"redis_namespace": "other"})


async def test_neither_takes_the_others_jobs(queue: Queue, neighbour: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"), idempotency_key="key", fingerprint="x")
    assert await claim(neighbour, "w", MODEL, 1, 0) == []
    assert await neighbour.get("a") is None
    await neighbour.submit(make_job("a", prompt="a blue circle"), idempotency_key="key", fingerprint="y")
    await neighbour.registry.announce("w", [MODEL], 30)
    assert await queue.registry.workers() == {}
    [job] = await claim(neighbour, "w", MODEL, 1, 0)
    assert job.request.prompt == "a blue circle"
    assert await neighbour.finish("w", "a", RESULT)
    assert [load.queued for load in await queue.loads()] == [1]
    assert await neighbour.delete("a") is not None
    assert [kept.id for kept in (await queue.list_jobs(TENANT, 9)).jobs] == ["a"]


async def test_neither_hears_the_other(queue: Queue, neighbour: Queue, make_job: Make) -> None:
    async with queue.watch_arrivals([MODEL]) as arrived, queue.follow("a") as feed:
        while await arrived.within(0.2):  # a new subscription wakes everybody once
            pass
        await neighbour.submit(make_job("a"))
        assert await feed.next(0.2) == []
        assert not await arrived.within(0)
        await queue.submit(make_job("a"))
        assert await arrived.within(30)
        assert [event.type for event in await feed.next(30)] == ["queued"]


async def test_neither_counts_the_others_requests(queue: Queue, neighbour: Queue) -> None:
    async with queue.concurrency.hold("key", 1), neighbour.concurrency.hold("key", 1):
        with pytest.raises(RateLimitExceeded):
            await neighbour.concurrency.hold("key", 1).__aenter__()
    assert (await queue.rate_limiter.take("key", "reads", 5)).remaining == 4
    assert (await neighbour.rate_limiter.take("key", "reads", 5)).remaining == 4


async def test_no_key_lies_outside_the_namespace(settings: Settings, make_job: Make, connect: Connect) -> None:
    assert settings.redis_url is not None
    await make_every_transition(settings.redis_url, other(settings), make_job)
    looker = connect(settings)
    names = [str(name) async for name in looker._redis.scan_iter()]
    # The library that counts rates puts its own word before the prefix.
    assert {name.split(":")[0] for name in names} == {"{other}"}, names
