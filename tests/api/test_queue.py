"""What a caller can say and learn about waiting: the queue, priorities, deadlines."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.jobs import Priority
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, first_waiting, serving

BODY = {"prompt": "a shape", "seed": 7}
MODEL = "shapes-flux"
WORK = 64 * 64 * 4


async def test_an_empty_queue_is_shown_for_every_model(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/queue")
    assert answer.status_code == 200
    nothing = {"queued": 0, "queued_work": 0, "held_work": 0, "workers": 0, "work_per_s": None, "wait_s": None}
    assert {"model": MODEL, **nothing} in answer.json()["data"]


async def test_the_wait_is_told_once_the_speed_is_known(
    api: httpx.AsyncClient, queue: Queue, worker: FakeWorker
) -> None:
    await api.post("/v1/jobs", json=BODY, headers={"prefer": "wait=10"})
    worker.stopping = True
    while await queue.registry.workers():  # noqa: ASYNC110 - it retires when it has seen that
        await asyncio.sleep(0.01)
    await queue.registry.announce("busy", [MODEL], 60)
    for _ in range(3):
        await api.post("/v1/jobs", json=BODY)
    shown = next(each for each in (await api.get("/v1/queue")).json()["data"] if each["model"] == MODEL)
    assert (shown["queued"], shown["queued_work"], shown["workers"]) == (3, 3 * WORK, 1)
    assert shown["wait_s"] == pytest.approx(3 * WORK / shown["work_per_s"])


@pytest.mark.parametrize("asked", [None, "low", "normal", "high"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/generations"])
async def test_a_priority_goes_into_the_queue(
    api: httpx.AsyncClient, queue: Queue, asked: str | None, path: str
) -> None:
    await queue.registry.announce("busy", [MODEL], 60)
    asking = asyncio.create_task(api.post(path, json={**BODY, "priority": asked}))
    shown = await first_waiting(queue)
    assert shown.priority is Priority(asked or "normal")
    assert (await api.get(f"/v1/jobs/{shown.id}")).json()["priority"] == (asked or "normal")
    await queue.cancel(shown.id)
    await asking


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"priority": "urgent"}, 422, "invalid_request"),
        ({"priority": 1}, 422, "invalid_request"),
        ({"deadline_s": 0}, 422, "invalid_request"),
        ({"deadline_s": -1}, 422, "invalid_request"),
        ({"deadline_s": "soon"}, 422, "invalid_request"),
        ({"deadline_s": 100_000}, 400, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_is_refused(
    api: httpx.AsyncClient, queue: Queue, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = await api.post("/v1/jobs", json={**BODY, **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"] == next(iter(fields))
    assert await queue.depth(MODEL) == 0


async def test_a_late_job_expires_while_its_caller_waits(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/jobs", json={**BODY, "deadline_s": 0.2}, headers={"prefer": "wait=30"})
    job = answer.json()
    assert (answer.status_code, job["status"]) == (200, "expired")
    assert job["deadline_at"] - job["created_at"] == pytest.approx(0.2)
    assert job["error"]["code"] == "deadline_exceeded"
    result = await api.get(f"/v1/jobs/{job['id']}/result")
    assert (result.status_code, result.json()["error"]["code"]) == (410, "expired")


async def test_a_late_picture_is_gone(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("busy", [MODEL], 60)
    answer = await api.post("/v1/images/generations", json={**BODY, "deadline_s": 0.2})
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "expired")


async def test_the_queue_of_one_model_is_bounded_by_itself(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"queue_limit_per_model": 1})) as api:
        await api.post("/v1/jobs", json=BODY)
        answer = await api.post("/v1/jobs", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert MODEL in answer.json()["error"]["message"]
