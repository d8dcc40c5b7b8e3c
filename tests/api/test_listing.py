"""Lists and deletion over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.artifacts import Artifacts
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import by, job_of, keyed
from tests.api.sse import listening
from tests.api.support import FakeWorker, serving
from tests.claiming import claim

BODY = {"prompt": "a shape", "seed": 7}
WAIT = {"prefer": "wait=10"}


async def test_jobs_are_listed_page_by_page(api: httpx.AsyncClient) -> None:
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert (await api.get("/v1/jobs")).json() == empty
    ids = [job_of(await api.post("/v1/jobs", json=BODY)) for _ in range(5)]
    first = (await api.get("/v1/jobs", params={"limit": 3})).json()
    assert [job["id"] for job in first["data"]] == ids[:1:-1]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[4], ids[2], True)
    assert first["data"][0] == (await api.get(f"/v1/jobs/{ids[4]}")).json()
    second = (await api.get("/v1/jobs", params={"limit": 3, "after": first["last_id"]})).json()
    assert [job["id"] for job in second["data"]] == ids[1::-1]
    assert second["has_more"] is False


async def test_a_list_holds_what_is_asked_for(api: httpx.AsyncClient) -> None:
    ids = [job_of(await api.post("/v1/jobs", json=BODY)) for _ in range(2)]
    await api.post(f"/v1/jobs/{ids[0]}/cancel")
    for query, found in (
        ({"status": "cancelled"}, ids[:1]),
        ({"status": "completed"}, []),
        ({"model": "shapes-flux"}, ids[::-1]),
        ({"model": "another"}, []),
    ):
        assert [job["id"] for job in (await api.get("/v1/jobs", params=query)).json()["data"]] == found


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=done", "after=job_0", "order=asc"])
async def test_a_list_that_cannot_be_is_refused(api: httpx.AsyncClient, query: str) -> None:
    answer = await api.get(f"/v1/jobs?{query}")
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["param"] == query.partition("=")[0]


async def test_another_tenants_jobs_are_neither_listed_nor_deleted(settings: Settings) -> None:
    async with serving(keyed(settings)) as api:
        job_id = job_of(await api.post("/v1/jobs", json=BODY, headers=by("alice")))
        assert (await api.get("/v1/jobs", headers=by("bob"))).json()["data"] == []
        assert (await api.get(f"/v1/jobs?after={job_id}", headers=by("bob"))).status_code == 400
        assert (await api.get(f"/v1/jobs/{job_id}/events", headers=by("bob"))).status_code == 404
        assert (await api.delete(f"/v1/jobs/{job_id}", headers=by("bob"))).status_code == 404
        [mine] = (await api.get("/v1/jobs", headers=by("alice-reads"))).json()["data"]
        assert mine["id"] == job_id
        assert (await api.delete(f"/v1/jobs/{job_id}", headers=by("alice-reads"))).status_code == 403
        assert (await api.delete(f"/v1/jobs/{job_id}", headers=by("alice-sends"))).status_code == 200


async def test_a_completed_job_is_deleted_with_its_files(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings
) -> None:
    kept = (await api.post("/v1/jobs", json=BODY, headers=WAIT)).json()
    job = (await api.post("/v1/jobs", json={**BODY, "n": 2}, headers=WAIT)).json()
    folder = settings.data_folder / "artifacts"
    assert len(list(folder.iterdir())) == 3
    answer = await api.delete(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.json()) == (200, {"id": job["id"], "object": "job", "deleted": True})
    assert len(list(folder.iterdir())) == 1
    assert (await api.get(kept["outputs"][0]["url"])).status_code == 200
    for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        gone = await api.request(method, f"/v1/jobs/{job['id']}{path}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_a_job_at_work_is_deleted_and_those_who_follow_it_hear_so(
    api: httpx.AsyncClient, queue: Queue, settings: Settings
) -> None:
    job_id = job_of(await api.post("/v1/jobs", json=BODY))
    async with listening(api, job_id) as coming:
        assert (await anext(coming)).type == "queued"
        [claimed] = await claim(queue, "fake-1", "shapes-flux", 1, 10)
        assert (await anext(coming)).type == "started"
        assert (await api.delete(f"/v1/jobs/{job_id}")).status_code == 200
        [last] = [event async for event in coming]
    assert last.type == "cancelled"
    assert "job" not in last.data
    await FakeWorker(queue, Artifacts.open(settings)).finish(claimed)
    assert (await api.get(f"/v1/jobs/{job_id}")).status_code == 404
