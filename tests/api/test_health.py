from __future__ import annotations

import subprocess
import sys

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.api.server import create_app
from app.artifacts import Artifacts
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker
from tests.claiming import claim


async def test_ready_only_with_a_worker_that_holds_the_default_model(api: httpx.AsyncClient, queue: Queue) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
    await queue.announce("w", [], 60)
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    await queue.announce("w", ["shapes-flux"], 60)
    assert (await api.get("/readyz")).status_code == 200


async def test_openapi_describes_every_route_and_the_one_error_body(api: httpx.AsyncClient) -> None:
    description = (await api.get("/openapi.json")).json()
    assert description["paths"].keys() >= {
        "/v1/jobs",
        "/v1/jobs/{job_id}/result",
        "/v1/images/generations",
        "/v1/models",
    }
    assert "HTTPValidationError" not in description["components"]["schemas"]
    assert (await api.get("/docs")).status_code == 200


async def samples(api: httpx.AsyncClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and label values, in the order of the labels' names."""
    text = (await api.get("/metrics")).text
    return {
        (each.name, tuple(each.labels.values())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


async def test_a_finished_job_is_counted_once_however_often_it_is_seen(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=10"})).json()
    for _ in range(3):
        await api.get(f"/v1/jobs/{job['id']}")
    await api.post("/v1/jobs", json={"prompt": "fail"}, headers={"prefer": "wait=10"})
    read = await samples(api)
    assert read["nag_jobs_total", ("", "shapes-flux", "completed")] == 1
    assert read["nag_jobs_total", ("out_of_memory", "shapes-flux", "failed")] == 1
    assert read["nag_e2e_request_latency_seconds_count", ("shapes-flux",)] == 1
    assert read["nag_e2e_request_latency_seconds_sum", ("shapes-flux",)] == 0.04
    assert read["nag_request_denoise_time_seconds_sum", ("shapes-flux",)] == 0.03
    assert read["nag_guidance_total", ("false", "shapes-flux", "not_requested")] == 1
    assert (read["nag_workers_alive", ()], read["nag_warm_workers", ("shapes-flux",)]) == (1, 1)


async def test_a_job_nobody_came_back_for_is_counted(api: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    await api.post("/v1/jobs", json={"prompt": "a"})
    read = await samples(api)
    assert read["nag_queue_depth", ("shapes-flux",)] == 1
    assert ("nag_jobs_total", ("", "shapes-flux", "completed")) not in read
    [job] = await claim(queue, "w", "shapes-flux", 1, 1)
    await FakeWorker(queue, Artifacts.open(settings), name="w").finish(job)
    read = await samples(api)
    assert read["nag_jobs_total", ("", "shapes-flux", "completed")] == 1
    assert read["nag_queue_depth", ("shapes-flux",)] == 0


def test_apps_do_not_share_their_metrics(settings: Settings) -> None:
    create_app(settings)
    create_app(settings)


def test_the_api_process_loads_no_torch() -> None:
    heavy = ("torch", "diffusers", "transformers", "nag", "numpy", "PIL")
    code = f"import sys, app.api.server; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
