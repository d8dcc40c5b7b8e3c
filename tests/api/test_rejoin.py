"""A client that loses its connection and sends its request again joins the job that it left."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from PIL import Image

from app.artifacts import Artifacts
from app.jobs import JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import by, keyed
from tests.api.support import FakeWorker, serving
from tests.claiming import claim
from tests.pictures import png

IMAGES, EDITS, JOBS = "/v1/images/generations", "/v1/images/edits", "/v1/jobs"
MODEL = "shapes-flux"
BODY = {"prompt": "a shape"}
GRACE_S = 30.0
#: The scripted one, which finishes what it has claimed.
WORKER = "fake-1"


@pytest.fixture
def patient(settings: Settings) -> Settings:
    """Settings by which a job whose client has left is not cancelled while a test runs."""
    return settings.model_copy(update={"rejoin_s": GRACE_S})


async def waiting(queue: Queue, count: int) -> list[str]:
    """The ids of the jobs that wait, once there are so many."""
    async with asyncio.timeout(20):
        while len(found := (await queue.snapshot(MODEL)).jobs) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return [candidate.id for candidate in found]


async def leave(asking: asyncio.Task[Any], queue: Queue) -> None:
    """Breaks the connection, and waits until the server has noticed."""
    asking.cancel()
    await asyncio.wait([asking])
    pattern = queue.keys.ORPHANS + "*"
    async with asyncio.timeout(20):
        while not await queue._redis.keys(pattern):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


REQUESTS = {
    "images": (IMAGES, {"json": BODY}),
    "a stream": (IMAGES, {"json": {**BODY, "stream": True}}),
    "a job": (JOBS, {"json": BODY, "headers": {"prefer": "wait=60"}}),
}


@pytest.mark.parametrize(("path", "sent"), REQUESTS.values(), ids=REQUESTS)
async def test_the_same_request_joins_the_job_that_was_left(
    patient: Settings, queue: Queue, path: str, sent: dict[str, Any]
) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(patient) as api:
        first = asyncio.create_task(api.post(path, **sent))
        [job_id] = await waiting(queue, 1)
        await leave(first, queue)
        again = asyncio.create_task(api.post(path, **sent))
        async with asyncio.timeout(20):
            while await queue._redis.keys(queue.keys.ORPHANS + "*"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        [job] = await claim(queue, WORKER, MODEL, 8, 0)
        assert job.id == job_id
        await FakeWorker(queue, Artifacts.open(patient)).finish(job)
        answer = await again
        assert (answer.status_code, job_id in answer.text) == (200, True)
        third = asyncio.create_task(api.post(path, **sent))  # nobody has left: a job of its own
        assert await waiting(queue, 1) != [job_id]
        third.cancel()
        await asyncio.wait([third])


async def test_an_image_that_was_made_meanwhile_is_there_at_once(patient: Settings, queue: Queue) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(patient) as api:
        first = asyncio.create_task(api.post(IMAGES, json=BODY))
        await waiting(queue, 1)
        await leave(first, queue)
        [job] = await claim(queue, WORKER, MODEL, 8, 0)
        await FakeWorker(queue, Artifacts.open(patient)).finish(job)
        answer = await api.post(IMAGES, json=BODY)
        assert (answer.json()["job"], answer.json()["seed"]) == (job.id, job.request.seed)


async def test_a_request_that_was_held_too_long_joins_again(patient: Settings, queue: Queue) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(patient.model_copy(update={"wait_max_s": 0.1})) as api:
        for _ in range(3):
            answer = await api.post(IMAGES, json=BODY)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        [job] = await claim(queue, WORKER, MODEL, 8, 0)
        await FakeWorker(queue, Artifacts.open(patient)).finish(job)
        assert (await api.post(IMAGES, json=BODY)).json()["job"] == job.id


async def test_equal_requests_side_by_side_are_jobs_of_their_own(patient: Settings, queue: Queue) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(patient) as api:
        asking = [asyncio.create_task(api.post(IMAGES, json=BODY)) for _ in range(3)]
        ids = await waiting(queue, 3)
        await leave(asking[0], queue)
        again = [asyncio.create_task(api.post(IMAGES, json=BODY)) for _ in range(2)]
        found = await waiting(queue, 4)  # one of two took the job that was left
        assert set(ids) < set(found)
        for task in (*asking, *again):
            task.cancel()
        await asyncio.wait([*asking, *again])


@pytest.mark.parametrize(
    "other",
    [
        {"json": {**BODY, "seed": 7}},
        {"json": {**BODY, "n": 2}},
        {"json": {**BODY, "model": "dall-e-3"}},
        {"json": BODY, "headers": by("bob")},
        {"json": BODY, "headers": {**by("alice"), "idempotency-key": "k"}},
    ],
)
async def test_another_request_is_another_job(patient: Settings, queue: Queue, other: dict[str, Any]) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(keyed(patient)) as api:
        first = asyncio.create_task(api.post(IMAGES, json=BODY, headers=by("alice")))
        await waiting(queue, 1)
        await leave(first, queue)
        second = asyncio.create_task(api.post(IMAGES, **{"headers": by("alice"), **other}))
        await waiting(queue, 2)
        second.cancel()
        await asyncio.wait([second])


async def test_other_files_are_another_job(patient: Settings, queue: Queue) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    red, blue = (png(Image.new("RGB", (64, 64), color)) for color in ("red", "blue"))
    async with serving(patient) as api:

        def ask(data: bytes) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(api.post(EDITS, data=BODY, files={"image": ("a.png", data)}))

        first = ask(red)
        [job_id] = await waiting(queue, 1)
        await leave(first, queue)
        other, same = ask(blue), ask(red)
        assert len(await waiting(queue, 2)) == 2
        [job, _] = await claim(queue, WORKER, MODEL, 8, 0)
        assert job.id == job_id
        await FakeWorker(queue, Artifacts.open(patient)).finish(job)
        assert (await same).json()["job"] == job_id
        other.cancel()
        await asyncio.wait([other])


async def test_a_job_that_is_not_taken_over_is_cancelled(settings: Settings, queue: Queue) -> None:
    await queue.registry.announce(WORKER, [MODEL], 60)
    async with serving(settings.model_copy(update={"rejoin_s": 0.05})) as api:
        first = asyncio.create_task(api.post(IMAGES, json=BODY))
        [job_id] = await waiting(queue, 1)
        first.cancel()
        await asyncio.wait([first])
        job = await queue.wait(job_id, 20)
        assert job is not None
        assert job.status is JobStatus.CANCELLED
        again = asyncio.create_task(api.post(IMAGES, json=BODY))  # a cancelled job is joined by nobody
        assert await waiting(queue, 1) != [job_id]
        again.cancel()
        await asyncio.wait([again])
