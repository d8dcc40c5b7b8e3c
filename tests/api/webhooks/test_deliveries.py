"""What a receiver hears of jobs, and how often."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.api.webhooks import deliveries, sender
from app.artifacts import Artifacts
from app.jobs import TENANT, EventType, Job, Webhook
from app.queue import webhooks
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import by, keyed
from tests.api.support import FakeWorker, first_waiting, serving
from tests.api.webhooks.receiver import SECRET, answer, body, receiving, types, with_webhooks
from tests.claiming import claim

keys = Keys("nag")

ALL = ["queued", "started", "progress", "completed", "failed", "cancelled", "expired"]


async def work(queue: Queue, settings: Settings, steps: int = 0) -> None:
    [job] = await claim(queue, "fake-1", "shapes-flux", 1, 10)
    for step in range(1, steps + 1):
        await queue.heartbeat("fake-1", {job.id: step})
    await FakeWorker(queue, Artifacts.open(settings)).finish(job)


async def settled(redis: Redis) -> None:
    """Nothing is left on the schedule."""
    async with asyncio.timeout(60):
        while await redis.exists(keys.WEBHOOKS_DUE, keys.WEBHOOK_TRIES):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_the_end_of_a_job_is_told_once_and_signed(settings: Settings, queue: Queue) -> None:
    async with receiving() as receiver, serving(with_webhooks(settings)) as api, serving(with_webhooks(settings)):
        job = (await api.post("/v1/jobs", json=body(receiver))).json()
        await work(queue, settings, 2)
        [message] = await receiver.hears(1)
        assert message["type"] == "job.completed"
        assert message["data"] == (await api.get(f"/v1/jobs/{job['id']}")).json()
        assert message["timestamp"].endswith("Z")
        assert receiver.told[0][0] == "/hook"
        assert receiver.ids[0].startswith(f"msg_{job['id']}_completed_")
        await settled(queue._redis)
        assert len(receiver.told) == 1


async def test_links_begin_with_the_public_address(settings: Settings, queue: Queue) -> None:
    settings = with_webhooks(settings, public_url="https://images.example.org/nag/")
    async with receiving() as receiver, serving(settings) as api:
        await api.post("/v1/jobs", json=body(receiver))
        await work(queue, settings)
        [message] = await receiver.hears(1)
        url = message["data"]["outputs"][0]["url"]
        assert url.startswith("https://images.example.org/nag/v1/artifacts/job_")
        assert (await api.get(url.removeprefix("https://images.example.org/nag"))).status_code == 200
        job = (await api.get(f"/v1/jobs/{message['data']['id']}")).json()
        assert job["outputs"][0]["url"].startswith("/nag/v1/artifacts/")  # a client knows at which host it asked


async def test_every_event_that_is_asked_for_is_told(settings: Settings, queue: Queue) -> None:
    async with receiving() as receiver, serving(with_webhooks(settings)) as api:
        job = (await api.post("/v1/jobs", json=body(receiver, events=ALL))).json()
        await receiver.hears(1)
        [claimed] = await claim(queue, "fake-1", "shapes-flux", 1, 10)
        await receiver.hears(2)
        await queue.heartbeat("fake-1", {claimed.id: 3})
        messages = await receiver.hears(3)
        assert messages[2]["data"]["progress"] == {"step": 3, "steps": 4}
        await api.post(f"/v1/jobs/{job['id']}/cancel")
        messages = await receiver.hears(4)
    assert types(messages) == ["job.queued", "job.started", "job.progress", "job.cancelled"]
    assert len(set(receiver.ids)) == 4


async def test_the_end_is_told_again_until_it_is_taken(settings: Settings, queue: Queue) -> None:
    unkind: list[Any] = [answer(500), answer(429), answer(503), b"", b"not HTTP\r\n\r\n"]
    async with receiving(answers=unkind) as receiver, serving(with_webhooks(settings)) as api:
        await api.post("/v1/jobs", json=body(receiver))
        await work(queue, settings)
        messages = await receiver.hears(6)
        await settled(queue._redis)
    assert len(receiver.told) == 6
    assert len(set(receiver.ids)) == 1
    assert all(message == messages[0] for message in messages)


async def test_who_never_takes_it_is_left_in_peace(settings: Settings, queue: Queue) -> None:
    settings = with_webhooks(settings, webhook_attempts=3)
    async with receiving(answers=[answer(500)] * 9) as receiver, serving(settings) as api:
        await api.post("/v1/jobs", json=body(receiver))
        await work(queue, settings)
        await receiver.hears(3)
        await settled(queue._redis)
    assert len(receiver.told) == 3


@pytest.mark.parametrize("status", [302, 400, 404, 410])
async def test_who_rejects_it_is_not_asked_again(settings: Settings, queue: Queue, status: int) -> None:
    redirect = f"location: http://127.0.0.1:{6379}/"
    async with receiving(answers=[answer(status, redirect)]) as receiver, serving(with_webhooks(settings)) as api:
        await api.post("/v1/jobs", json=body(receiver))
        await work(queue, settings)
        await receiver.hears(1)
        await settled(queue._redis)
    assert len(receiver.told) == 1


async def test_progress_is_told_seldom_and_never_again(settings: Settings, queue: Queue) -> None:
    async with receiving(answers=[answer(500)]) as receiver, serving(with_webhooks(settings)) as api:
        await api.post("/v1/jobs", json=body(receiver, events=["progress"]))
        [job] = await claim(queue, "fake-1", "shapes-flux", 1, 10)
        await queue.heartbeat("fake-1", {job.id: 1})
        await receiver.hears(1)
        await settled(queue._redis)  # it was not taken, and the job is at work still
        assert len(receiver.told) == 1
        for step in range(2, 200):
            await queue.heartbeat("fake-1", {job.id: step})
        await FakeWorker(queue, Artifacts.open(settings)).finish(job)
        await settled(queue._redis)
    assert len(receiver.told) < 40  # of 200 steps, which take a few seconds at the most


async def test_an_answer_is_awaited_for_a_bounded_time_and_its_body_not_at_all(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.3)

    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    async with receiving(answers=[silence, flood]) as receiver, serving(with_webhooks(settings)) as api:
        await api.post("/v1/jobs", json=body(receiver))
        await work(queue, settings)
        await receiver.hears(2)
        await settled(queue._redis)
    assert len(receiver.told) == 2


async def test_a_deleted_job_is_not_told_of(settings: Settings, queue: Queue) -> None:
    settings = with_webhooks(settings, webhook_retry_s=0.5)
    async with receiving(answers=[answer(500)]) as receiver, serving(settings) as api:
        job = (await api.post("/v1/jobs", json=body(receiver))).json()
        await work(queue, settings)
        await receiver.hears(1)
        await api.delete(f"/v1/jobs/{job['id']}")
        await settled(queue._redis)
    assert len(receiver.told) == 1


async def test_what_no_receiver_took_is_told_by_the_next_api(settings: Settings, queue: Queue) -> None:
    settings = with_webhooks(settings)
    async with receiving() as receiver:
        gone = receiver.port
        asked = body(receiver)
    async with serving(settings) as api:
        await api.post("/v1/jobs", json=asked)
        await work(queue, settings)
        async with asyncio.timeout(30):
            while not await queue._redis.hvals(keys.WEBHOOK_TRIES):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    async with receiving(gone) as receiver, serving(settings):
        [message] = await receiver.hears(1)
        await settled(queue._redis)
    assert message["type"] == "job.completed"


@pytest.mark.slow
async def test_what_a_killed_api_was_telling_is_told_by_another(
    settings: Settings, queue: Queue, valkey_url: str
) -> None:
    settings = with_webhooks(settings)

    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = os.environ | {
        "NAG_DATA_DIR": str(settings.data_dir), "NAG_REDIS_URL": valkey_url, "NAG_PORT": str(port),
        "NAG_WEBHOOK_SECRET": SECRET, "NAG_WEBHOOK_ALLOW": "127.0.0.0/8",
    }  # fmt: skip
    async with receiving(answers=[silence]) as receiver:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "api", env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as api:
            await api.post("/v1/jobs", json=body(receiver))
        await first_waiting(queue)
        await work(queue, settings)
        await receiver.hears(1)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        for key in (keys.WEBHOOKS + TENANT, keys.WEBHOOKS_DUE):  # the claim's time is up
            scheduled: Any = await queue._redis.zrange(key, 0, -1, withscores=True)
            [(entry, due_ms)] = scheduled
            await queue._redis.zadd(key, {entry: due_ms - webhooks.LEASE_S * 1000})
        async with serving(settings):
            messages = await receiver.hears(2)
            await settled(queue._redis)
    assert messages[0] == messages[1]
    assert len(set(receiver.ids)) == 1


async def test_receivers_that_hang_leave_room_for_other_tenants(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 600.0)
    monkeypatch.setattr(deliveries, "AT_ONCE", 8)
    monkeypatch.setattr(deliveries, "LEAVE_S", 0.0)

    over = asyncio.Event()

    async def silence(writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with receiving(answers=[silence] * 40) as hanging, receiving() as receiver:
        async with serving(keyed(with_webhooks(settings))) as api:
            for tenant in ("alice", "operator"):
                for _ in range(20):
                    await api.post("/v1/jobs", json=body(hanging, events=["queued"]), headers=by(tenant))
            await hanging.hears(5)
            for number in range(1, 13):
                await api.post("/v1/jobs", json=body(receiver, events=["queued"]), headers=by("bob"))
                await receiver.hears(number)
        assert len(hanging.told) < 8
        over.set()


async def test_a_tenant_s_webhooks_take_turns_with_the_others(queue: Queue, make_job: Callable[..., Job]) -> None:
    webhook = Webhook("http://127.0.0.1:9999/", (EventType.QUEUED,))
    for number, tenant in enumerate("aaaaabc"):
        await queue.submit(replace(make_job(f"{tenant}{number}"), tenant=tenant, webhook=webhook))
    claimed, _ = await queue.webhooks.claim(8, {})
    assert [delivery.job.id for delivery in claimed] == ["a0", "b5", "c6", "a1", "a2"]  # as many places stay free
    again, wait_s = await queue.webhooks.claim(8, {"a": 1})
    assert [delivery.job.id for delivery in again] == ["a3", "a4"]
    assert wait_s is not None
    for delivery in claimed:
        await queue.webhooks.finish(delivery)
    await queue.webhooks.retry(again[0], 0)
    [last], _ = await queue.webhooks.claim(8, {})
    assert (last.job.id, last.tries) == ("a3", 2)
