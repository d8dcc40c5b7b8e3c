from __future__ import annotations

import asyncio
import io
import time

import httpx
import pytest
from PIL import Image

from app.artifacts import Artifacts
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import TIMINGS, FakeWorker, serving
from tests.claiming import claim

BODY = {"prompt": "a shape", "seed": 7}
WAIT = {"prefer": "wait=10"}


async def test_a_job_is_accepted_and_can_be_looked_at(api: httpx.AsyncClient, queue: Queue) -> None:
    answer = await api.post("/v1/jobs", json=BODY)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["progress"]) == ("queued", {"step": 0, "steps": 4})
    assert (await api.get(answer.headers["location"])).json() == job
    assert await queue.depth("shapes-flux") == 1


async def test_waiting_gives_the_finished_job_with_its_echo(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post("/v1/jobs", json={**BODY, "negative_prompt": "a red shape"}, headers=WAIT)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    job = answer.json()
    assert job["status"] == "completed"
    assert job["seed"] == 7
    numbers = {"scale": 5.0, "tau": 2.5, "alpha": 0.25, "end": 1.0, "scale_decay": 0.0, "start": 0.0}
    assert job["nag"] == {"applied": True, "reason": None, **numbers, "method": "nag"}
    assert (job["attempts"], job["worker"], job["batch_size"]) == (1, "fake-1", 1)
    assert job["timings"] == {
        "queue_ms": 1.5, "encode_ms": 2.0, "denoise_ms": 30.0, "decode_ms": 4.25, "total_ms": 40.0,
    }  # fmt: skip
    assert job["warnings"] == ["a worker's word"]
    assert [each["seed"] for each in job["outputs"]] == [7]


async def test_a_wait_that_ends_too_early_is_a_202(api: httpx.AsyncClient) -> None:
    began_s = time.monotonic()
    answer = await api.post("/v1/jobs", json=BODY, headers={"prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert time.monotonic() - began_s >= 1
    assert answer.json()["status"] == "queued"


async def test_a_wait_is_held_no_longer_than_the_setting(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"wait_max_s": 0.2})) as api:
        answer = await api.post("/v1/jobs", json=BODY, headers={"prefer": "wait=1000"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0.2")


async def test_a_server_that_is_to_end_answers_what_it_holds(settings: Settings) -> None:
    async with serving(settings, stopping=lambda: True) as api:
        began_s = time.monotonic()
        answer = await api.post("/v1/jobs", json=BODY, headers={"prefer": "wait=60"})
    assert answer.status_code == 202
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("prefer", ["wait=soon", "wait", "wait=-1"])
async def test_a_wait_that_is_no_number_is_refused(api: httpx.AsyncClient, queue: Queue, prefer: str) -> None:
    answer = await api.post("/v1/jobs", json=BODY, headers={"prefer": prefer})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Prefer")
    assert await queue.depth("shapes-flux") == 0


async def test_a_seed_is_drawn_anew_when_absent(api: httpx.AsyncClient) -> None:
    seeds = {(await api.post("/v1/jobs", json={"prompt": "a shape"})).json()["seed"] for _ in range(4)}
    assert len(seeds) == 4


async def test_the_same_key_and_body_is_the_same_job(api: httpx.AsyncClient, queue: Queue) -> None:
    headers = {"idempotency-key": "order 66".replace(" ", "-")}
    body = {"prompt": "a shape"}  # no seed: the repeat must not fail for having drawn another
    first = await api.post("/v1/jobs", json=body, headers=headers)
    again = await api.post("/v1/jobs", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert await queue.depth("shapes-flux") == 1


async def test_fifty_at_once_with_one_key_are_one_job(settings: Settings, queue: Queue) -> None:
    async with serving(settings) as one, serving(settings) as other:
        answers = await asyncio.gather(
            *(api.post("/v1/jobs", json=BODY, headers={"idempotency-key": "k"}) for api in [one, other] * 25)
        )
        listed = (await one.get("/v1/jobs")).json()["data"]
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert {answer.json()["id"] for answer in answers} == {job["id"] for job in listed}
    assert await queue.depth("shapes-flux") == len(listed) == 1


async def test_the_same_key_with_another_body_is_a_conflict(api: httpx.AsyncClient, queue: Queue) -> None:
    headers = {"idempotency-key": "k"}
    await api.post("/v1/jobs", json=BODY, headers=headers)
    answer = await api.post("/v1/jobs", json={**BODY, "seed": 8}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert answer.headers["x-should-retry"] == "false"
    assert await queue.depth("shapes-flux") == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "a b"])
async def test_a_key_of_odd_form_is_refused(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.post("/v1/jobs", json=BODY, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_full_queue_says_when_to_come_back(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"queue_limit": 1})) as api:
        await api.post("/v1/jobs", json=BODY)
        answer = await api.post("/v1/jobs", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(answer.headers["retry-after"]) <= 120


async def test_the_result_is_the_picture(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    body = {**BODY, "n": 2, "output_format": "webp"}
    job = (await api.post("/v1/jobs", json=body, headers=WAIT)).json()
    second = await api.get(f"/v1/jobs/{job['id']}/result", params={"index": 1})
    assert second.status_code == 200
    assert second.headers["content-type"] == "image/webp"
    assert float(second.headers["x-queue-time"]) == TIMINGS.queue_ms
    assert float(second.headers["x-inference-time"]) == pytest.approx(36.25, abs=0.1)
    assert Image.open(io.BytesIO(second.content)).size == (64, 64)
    assert [(await api.get(each["url"])).status_code for each in job["outputs"]] == [200, 200]
    assert len((await api.get(job["outputs"][0]["url"], headers={"range": "bytes=0-3"})).content) == 4


@pytest.mark.parametrize("query", ["index=1", "index=-1", "index=x", "indx=0"])
async def test_a_picture_that_is_not_there_is_the_callers_error(
    api: httpx.AsyncClient, worker: FakeWorker, query: str
) -> None:
    job = (await api.post("/v1/jobs", json=BODY, headers=WAIT)).json()
    answer = await api.get(f"/v1/jobs/{job['id']}/result?{query}")
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["param"] == query.partition("=")[0]


async def test_a_result_is_not_ready_then_gone(api: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    job = (await api.post("/v1/jobs", json=BODY)).json()
    early = await api.get(f"/v1/jobs/{job['id']}/result")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ready")
    artifacts = Artifacts.open(settings)
    [claimed] = await claim(queue, "fake-1", "shapes-flux", 1, 1)
    await FakeWorker(queue, artifacts).finish(claimed)
    assert (await api.get(f"/v1/jobs/{job['id']}/result")).status_code == 200
    done = await queue.get(job["id"])
    assert done is not None
    assert done.result is not None
    await artifacts.delete(done.result.artifacts[0].name)
    late = await api.get(f"/v1/jobs/{job['id']}/result")
    assert (late.status_code, late.json()["error"]["code"]) == (410, "expired")


async def test_a_failed_job_says_why(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post("/v1/jobs", json={"prompt": "fail"}, headers=WAIT)
    job = answer.json()
    assert (answer.status_code, job["status"]) == (200, "failed")
    assert job["error"] == {"code": "out_of_memory", "message": "the device ran out of memory"}
    result = await api.get(f"/v1/jobs/{job['id']}/result")
    assert (result.status_code, result.json()["error"]["code"]) == (500, "out_of_memory")


@pytest.mark.parametrize("path", ["/v1/jobs/nobody", "/v1/jobs/nobody/result"])
async def test_an_unknown_job_is_a_404(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("shown", [False, True])
async def test_a_prompt_is_logged_when_it_is_asked_for(
    settings: Settings, caplog: pytest.LogCaptureFixture, shown: bool
) -> None:
    caplog.set_level("DEBUG")
    async with serving(settings.model_copy(update={"log_prompts": shown})) as api:
        body = {"prompt": "a most private shape", "negative_prompt": "what nobody knows"}
        assert (await api.post("/v1/jobs", json=body)).status_code == 202
        assert (await api.post("/v1/jobs", json={**body, "width": 63})).status_code == 400
        assert (await api.post("/v1/jobs", json={**body, "width": "a most private shape"})).status_code == 422
    assert caplog.text.count("a most private shape") == shown
    assert "nobody knows" not in caplog.text
