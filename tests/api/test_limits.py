"""The limits of a key, counted for all API processes together."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from redis import Redis
from starlette.types import Message, Send

from app.api.middleware.auth import Caller
from app.api.middleware.rate_limit import RateLimitMiddleware
from app.queue import limits
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import KEYS, by, job_of, keyed
from tests.api.support import serving

keys = Keys("nag")

BODY = {"prompt": "a shape", "seed": 7}
ALICE, BOB = by("alice"), by("bob")


def limited(answer: httpx.Response) -> int:
    """Seconds until one may ask again."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    return int(answer.headers["retry-after"])


def rate(answer: httpx.Response) -> list[str]:
    return [answer.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")]


async def test_a_rate_is_held_by_two_processes_together(settings: Settings) -> None:
    settings = keyed(settings, requests_per_minute=4)
    async with serving(settings) as one, serving(settings) as other:
        answers = [await api.post("/v1/jobs", json=BODY, headers=ALICE) for api in (one, other, one, other)]
        assert [answer.status_code for answer in answers] == [202] * 4
        assert [rate(answer) for answer in answers] == [["4", str(left)] for left in (3, 2, 1, 0)]
        assert all(0 < int(answer.headers["x-ratelimit-reset-requests"][:-1]) <= 60 for answer in answers)
        for api in (one, other):
            refused = await api.post("/v1/jobs", json=BODY, headers=ALICE)
            assert 0 < limited(refused) <= 60
            assert rate(refused) == ["4", "0"]
        # Neither reading nor another key is held up.
        assert (await one.get("/v1/models", headers=ALICE)).status_code == 200
        free = await one.post("/v1/jobs", json=BODY, headers=BOB)
        assert free.status_code == 202
        assert "x-ratelimit-limit-requests" not in free.headers


async def test_retry_after_is_true(settings: Settings, valkey_url: str) -> None:
    """After it, and not before, there is room: the requests are made older rather than waited for."""
    async with serving(keyed(settings, requests_per_minute=1)) as api:
        job_of(await api.post("/v1/jobs", json=BODY, headers=ALICE))
        wait_s = limited(await api.post("/v1/jobs", json=BODY, headers=ALICE))
        with Redis.from_url(valkey_url) as redis:
            [name] = redis.keys(f"{keys.RATES}*")

            def age(seconds: float) -> None:
                redis.lset(name, 0, float(redis.lindex(name, 0)) - seconds)

            age(wait_s / 2)
            left_s = limited(await api.post("/v1/jobs", json=BODY, headers=ALICE))
            assert left_s <= wait_s / 2 + 1
            age(left_s)
        job_of(await api.post("/v1/jobs", json=BODY, headers=ALICE))


async def test_reads_have_a_rate_of_their_own(settings: Settings) -> None:
    async with serving(keyed(settings, reads_per_minute=1)) as api:
        assert rate(await api.get("/v1/models", headers=ALICE)) == ["1", "0"]
        limited(await api.get("/v1/models", headers=ALICE))
        job_of(await api.post("/v1/jobs", json=BODY, headers=ALICE))


async def test_a_burst_gets_its_rate_and_no_more(settings: Settings) -> None:
    async with serving(keyed(settings, requests_per_minute=10)) as api:
        answers = await asyncio.gather(*(api.post("/v1/jobs", json=BODY, headers=ALICE) for _ in range(30)))
    assert Counter(answer.status_code for answer in answers) == {202: 10, 429: 20}


async def test_requests_at_once(settings: Settings, queue: Queue) -> None:
    settings = keyed(settings, requests_at_once=2)
    async with serving(settings) as one, serving(settings) as other:
        held = [
            asyncio.create_task(api.post("/v1/jobs", json=BODY, headers={**ALICE, "prefer": "wait=60"}))
            for api in (one, other)
        ]
        while await queue.depth("shapes-flux") < 2:  # noqa: ASYNC110 - looking is what a client would do
            await asyncio.sleep(0.01)
        assert limited(await one.get("/v1/models", headers=ALICE)) == limits.RETRY_S
        assert (await one.get("/v1/models", headers=BOB)).status_code == 200
        for job in (await queue.snapshot("shapes-flux")).jobs:
            await queue.cancel(job.id)
        assert [(await each).status_code for each in held] == [200, 200]
        assert (await one.get("/v1/models", headers=ALICE)).status_code == 200


async def test_a_slot_is_free_before_the_answer_is_whole(queue: Queue, valkey_url: str) -> None:
    """Who has the last byte may ask again at once."""
    key = KEYS[0].model_copy(update={"requests_at_once": 1})
    parts = SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(queue=queue)))
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/v1/models", "headers": []}
    scope |= {"state": {"caller": Caller("a", key)}, "app": parts}
    taken: list[object] = []

    async def answering(scope: object, receive: object, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def sent(message: Message) -> None:
        with Redis.from_url(valkey_url) as redis:
            taken.append(redis.exists(keys.SLOTS + key.id))

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await RateLimitMiddleware(answering)(scope, nothing, sent)
    assert taken == [1, 0]


async def test_a_slot_is_kept_while_its_request_lives_and_not_longer(
    settings: Settings, queue: Queue, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RENEW_S", 0.01)
    with Redis.from_url(valkey_url) as redis:
        async with queue.concurrency.hold("k", 1):
            redis.zadd(keys.SLOTS + "k", dict.fromkeys(redis.zrange(keys.SLOTS + "k", 0, -1), 1))
            while redis.zrange(keys.SLOTS + "k", 0, -1, withscores=True)[0][1] == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert redis.exists(keys.SLOTS + "k") == 0
        redis.zadd(keys.SLOTS + "k", {"of a process that died": 1})
        async with queue.concurrency.hold("k", 1):
            pass


async def test_pending_jobs(settings: Settings, queue: Queue) -> None:
    async with serving(keyed(settings, pending_jobs=2)) as api:
        first, _ = [job_of(await api.post("/v1/jobs", json=BODY, headers=ALICE)) for _ in range(2)]
        refused = await api.post("/v1/jobs", json=BODY, headers={**ALICE, "idempotency-key": "1"})
        assert 0 < limited(refused) <= 120
        job_of(await api.post("/v1/jobs", json=BODY, headers=BOB))
        await queue.cancel(first)
        job_of(await api.post("/v1/jobs", json=BODY, headers={**ALICE, "idempotency-key": "1"}))
        # What is asked for again is no new job.
        job_of(await api.post("/v1/jobs", json=BODY, headers={**ALICE, "idempotency-key": "1"}))


async def test_pending_jobs_of_a_burst(settings: Settings, queue: Queue) -> None:
    async with serving(keyed(settings, pending_jobs=5)) as api:
        answers = await asyncio.gather(*(api.post("/v1/jobs", json=BODY, headers=ALICE) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {202: 5, 429: 15}
    assert await queue.depth("shapes-flux") == 5


async def test_a_limit_without_a_queue_is_a_503(settings: Settings) -> None:
    away = keyed(settings, requests_per_minute=1, reads_per_minute=1).model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0"}
    )
    async with serving(away) as api:
        for answer in (
            await api.get("/v1/models", headers=ALICE),
            await api.post("/v1/jobs", json=BODY, headers=ALICE),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_unreachable")
        assert (await api.get("/healthz")).status_code == 200
