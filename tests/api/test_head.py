"""HEAD is answered as GET, without the body, by every route."""

from __future__ import annotations

import asyncio

import httpx

from app.api.server import create_app
from app.playground.files import load
from app.settings import Settings
from tests.api.support import FakeWorker
from tests.api.test_access import walk

#: Not the same in two answers to one request.
OWN = ("x-request-id", "date", "cache-control", "content-length", "transfer-encoding")
MOVING = {"/metrics", "/v1/queue"}  # their length depends on when they are asked


async def test_every_route_that_answers_get_answers_head(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings
) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape"}, headers={"prefer": "wait=10"})).json()
    url = job["outputs"][0]["url"]
    answered = set()
    for method, template in walk(create_app(settings).routes):
        if method != "GET":
            continue
        if template == "/docs/swagger":
            template += "/swagger-ui.css"
        path = template.replace("{job_id}", job["id"]).replace("{video_id}", job["id"])
        path = path.replace("{model_id}", "shapes-flux").replace("{version}/{path}", f"{load().version}/js/main.js")
        path = url if "{name}" in path else path
        got, head = await api.get(path), await api.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert {**head.headers, **dict.fromkeys(OWN)} == {**got.headers, **dict.fromkeys(OWN)}, path
        if template not in MOVING:
            assert head.headers.get("content-length") == got.headers.get("content-length"), path
        answered.add((template, head.status_code))
    assert {template for template, status in answered if status != 200} == {
        "/v1/videos/{video_id}",  # the job makes an image
        "/v1/videos/{video_id}/content",
        "/v1/loras/{lora_id}",  # there are none
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
    }
    assert len(answered) > 15


async def test_head_of_a_stream_ends_at_once(api: httpx.AsyncClient) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()
    head = await asyncio.wait_for(api.head(f"/v1/jobs/{job['id']}/events"), 20)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_head_is_refused_where_get_is(api: httpx.AsyncClient) -> None:
    assert (await api.head("/v1/jobs/none")).status_code == 404
    head = await api.head("/v1/images/generations")
    assert (head.status_code, head.headers["allow"]) == (405, "POST")
    other = await api.put("/v1/jobs")
    assert (other.status_code, other.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_head_is_counted_by_its_route(api: httpx.AsyncClient) -> None:
    await api.head("/v1/models")
    assert 'method="HEAD",route="/v1/models",status="200"' in (await api.get("/metrics")).text
