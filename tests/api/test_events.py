"""What becomes of a job, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest

from app.api.responses import sse
from app.artifacts import Artifacts
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.sse import SseMessage, events, listening
from tests.api.support import FakeWorker, serving
from tests.claiming import claim

STEPS = 12


@pytest.fixture
async def job_id(api: httpx.AsyncClient) -> str:
    return str((await api.post("/v1/jobs", json={"prompt": "a shape", "num_inference_steps": STEPS})).json()["id"])


async def work(queue: Queue, settings: Settings, first: int = 1, last: int = STEPS) -> None:
    """A job that waits, or is at work, to the step `last`; and with the last one to its end."""
    if first == 1:
        await claim(queue, "fake-1", "shapes-flux", 1, 10)
    [job_id] = await held(queue)
    for step in range(first, last + 1):
        await queue.heartbeat("fake-1", {job_id: step})
    if last == STEPS:
        job = await queue.get(job_id)
        assert job is not None
        await FakeWorker(queue, Artifacts.open(settings)).finish(job)


async def held(queue: Queue) -> list[str]:
    return [str(each) for each in await queue._redis.zrange("{nag}:leases", 0, -1)]


async def take(coming: AsyncIterator[SseMessage], count: int) -> list[SseMessage]:
    return [await anext(coming) for _ in range(count)]


async def test_a_job_is_followed_to_its_end(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("app.artifacts.signed_urls.time", SimpleNamespace(time=lambda: now))  # so links stay the same
    async with listening(api, job_id) as coming:
        [queued] = await take(coming, 1)
        await work(queue, settings)
        rest = [event async for event in coming]
    assert queued.type == "queued"
    assert queued.data == {"job_id": job_id, "type": "queued", "at": queued.data["at"]}
    assert (rest[0].type, rest[0].data["worker"], rest[0].data["attempt"]) == ("started", "fake-1", 1)
    assert [event.data["progress"] for event in rest[1:-1]] == [
        {"step": step, "steps": STEPS} for step in range(1, STEPS + 1)
    ]
    assert rest[-1].type == "completed"
    assert rest[-1].data["job"] == (await api.get(f"/v1/jobs/{job_id}")).json()
    assert rest[-1].data["job"]["progress"] == {"step": STEPS, "steps": STEPS}
    assert await events(api, job_id) == [queued, *rest]


async def test_who_was_cut_off_and_comes_back_misses_nothing(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, job_id: str
) -> None:
    async with listening(api, job_id) as coming:
        await work(queue, settings, 1, 4)
        first = await take(coming, 4)  # queued, started, two steps; the others are on their way
    await work(queue, settings, 5, 8)
    async with listening(api, job_id, first[-1].id) as coming:
        second = await take(coming, 6)
        rest = asyncio.create_task(events(api, job_id, second[-1].id))
        await work(queue, settings, 9, STEPS)
    assert [*first, *second, *await rest] == await events(api, job_id)


async def test_a_preview_is_told_where_it_was_asked_for(api: httpx.AsyncClient, queue: Queue) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape", "previews": 2})).json()
    assert job["request"]["previews"] == 2
    await claim(queue, "fake-1", "shapes-flux", 1, 10)
    assert await queue.publish_preview("fake-1", job["id"], 3, 0, b"a jpeg", "image/jpeg")
    await api.post(f"/v1/jobs/{job['id']}/cancel")
    *_, shown, last = await events(api, job["id"])
    assert (shown.type, last.type) == ("preview", "cancelled")
    assert shown.data["preview"] == {"index": 0, "step": 3, "media_type": "image/jpeg", "b64_json": "YSBqcGVn"}
    assert "progress" not in shown.data
    refused = await api.post("/v1/jobs", json={"prompt": "a shape", "previews": 4})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "previews")


async def test_who_has_heard_the_end_is_told_to_stay_away(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, job_id: str
) -> None:
    await work(queue, settings)
    last = (await events(api, job_id))[-1]
    answer = await api.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": str(last.id)})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("header", ["", "x", "1", "1-", "-1-0", "(1-0", "1-0-0", "9" * 20 + "-0"])
async def test_an_id_of_odd_form_is_refused(api: httpx.AsyncClient, job_id: str, header: str) -> None:
    answer = await api.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": header})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_an_unknown_job_has_no_events(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/jobs/job_0/events")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_silent_stream_is_kept_alive(
    api: httpx.AsyncClient, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.0)
    async with listening(api, job_id) as coming:
        assert [event.type for event in await take(coming, 3)] == ["queued", "comment", "comment"]
        await api.post(f"/v1/jobs/{job_id}/cancel")
        assert [event.type async for event in coming if event.type != "comment"] == ["cancelled"]


async def test_a_server_that_is_to_end_ends_the_stream(settings: Settings) -> None:
    stopping = False
    async with serving(settings, stopping=lambda: stopping) as api:
        job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()
        async with listening(api, job["id"]) as coming:
            await take(coming, 1)
            stopping = True
            assert [event async for event in coming] == []


async def test_the_stream_outlives_its_queues_connection(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, job_id: str
) -> None:
    async with listening(api, job_id) as coming:
        told = await take(coming, 1)
        await queue._redis.execute_command("CLIENT KILL TYPE pubsub")
        await work(queue, settings)
        told += [event async for event in coming]
    assert told == await events(api, job_id)
