"""Cancelling over HTTP: by asking for it, and by leaving."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.jobs import JobStatus
from app.queue.queue import Queue
from tests.api.support import FakeWorker, first_waiting
from tests.claiming import claim

BODY = {"prompt": "a shape", "seed": 7}
MODEL = "shapes-flux"


async def test_a_job_is_cancelled_and_stays_so(api: httpx.AsyncClient, queue: Queue) -> None:
    job = (await api.post("/v1/jobs", json=BODY)).json()
    first = await api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    again = await api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await queue.depth(MODEL) == 0
    result = await api.get(f"/v1/jobs/{job['id']}/result")
    assert (result.status_code, result.json()["error"]["code"]) == (409, "cancelled")
    assert result.headers["x-should-retry"] == "false"


async def test_a_finished_job_stays_as_it_is(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    job = (await api.post("/v1/jobs", json=BODY, headers={"prefer": "wait=10"})).json()
    answer = await api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()) == (200, job)


async def test_an_unknown_job_cannot_be_cancelled(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/jobs/job_unknown/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_who_waits_for_a_cancelled_job_is_answered(api: httpx.AsyncClient, queue: Queue) -> None:
    waiting = asyncio.create_task(api.post("/v1/jobs", json=BODY, headers={"prefer": "wait=60"}))
    await queue.cancel((await first_waiting(queue)).id)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def leave(api: httpx.AsyncClient, queue: Queue, path: str, headers: dict[str, str]) -> str:
    """Ask, and break the connection once the job is queued; its id."""
    asking = asyncio.create_task(api.post(path, json=BODY, headers=headers))
    job_id = (await first_waiting(queue)).id
    asking.cancel()
    await asyncio.wait([asking])
    return job_id


async def test_a_picture_whose_client_has_left_is_not_made(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("busy", [MODEL], 60)
    job_id = await leave(api, queue, "/v1/images/generations", {})
    job = await queue.wait(job_id, 30)
    assert job is not None
    assert job.status is JobStatus.CANCELLED
    assert await claim(queue, "w", MODEL, 1, 0) == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/images/generations", {"idempotency-key": "k"}), ("/v1/jobs", {"prefer": "wait=60"})],
)
async def test_a_job_that_can_be_asked_for_again_goes_on_without_its_client(
    api: httpx.AsyncClient, queue: Queue, path: str, headers: dict[str, str]
) -> None:
    await queue.registry.announce("busy", [MODEL], 60)
    job_id = await leave(api, queue, path, headers)
    job = await queue.wait(job_id, 1.5)
    assert job is not None
    assert job.status is JobStatus.QUEUED


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize("gone", ["deleted", "flushed"])
async def test_a_held_request_for_a_job_that_is_gone_is_answered_404(
    api: httpx.AsyncClient, queue: Queue, gone: str, claimed: bool
) -> None:
    await queue.registry.announce("w", [MODEL], 60)
    asking = [
        asyncio.create_task(api.post(path, json=BODY, headers=headers))
        for path, headers in (("/v1/jobs", {"prefer": "wait=60"}), ("/v1/images/generations", {}))
    ]
    async with asyncio.timeout(20):
        while await queue.depth(MODEL) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    ids = [job["id"] for job in (await api.get("/v1/jobs")).json()["data"]]
    if claimed:
        await claim(queue, "w", MODEL, 2, 0)
    if gone == "deleted":
        for job_id in ids:
            assert (await api.delete(f"/v1/jobs/{job_id}")).status_code == 200
    else:
        await queue._redis.flushall()
    for answer in await asyncio.wait_for(asyncio.gather(*asking), 20):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_held_request_is_answered_404_as_soon_as_its_job_s_deletion_has_begun(
    api: httpx.AsyncClient, queue: Queue
) -> None:
    """Its files are removed before it is; so long it can be deleted once more."""
    await queue.registry.announce("w", [MODEL], 60)
    asking = [
        asyncio.create_task(api.post("/v1/images/generations", json=BODY | stream)) for stream in ({}, {"stream": True})
    ]
    async with asyncio.timeout(20):
        while await queue.depth(MODEL) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    ids = [job["id"] for job in (await api.get("/v1/jobs")).json()["data"]]
    for job_id in ids:
        await queue.cancel(job_id, to_delete=True)
    answer, stream = await asyncio.wait_for(asyncio.gather(*asking), 20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert '"code": "not_found"' in stream.text
    for job_id in ids:
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "cancelled"
        assert (await api.delete(f"/v1/jobs/{job_id}")).status_code == 200


async def test_a_stream_for_a_job_that_is_deleted_ends(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("w", [MODEL], 60)
    asking = asyncio.create_task(api.post("/v1/images/generations", json=BODY | {"stream": True}))
    waiting = await first_waiting(queue)
    await api.delete(f"/v1/jobs/{waiting.id}")
    assert '"code": "not_found"' in (await asyncio.wait_for(asking, 20)).text
