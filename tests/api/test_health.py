from __future__ import annotations

import subprocess
import sys

import httpx

from app.queue.queue import Queue
from tests.limits import HANG_S


async def test_ready_while_a_worker_serves_the_default_model(api: httpx.AsyncClient, queue: Queue) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
    await queue.registry.announce("w", [], 60)
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    for warm in (["shapes-flux"], ["shapes-sd"], []):  # the memory may hold another model, or none
        await queue.registry.announce("w", warm, 60, serves=["shapes-flux", "shapes-sd"])
        assert (await api.get("/readyz")).status_code == 200
    await queue.registry.announce("w", ["shapes-sd"], 60, serves=["shapes-sd"])
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")


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


def test_the_api_process_loads_no_torch() -> None:
    heavy = ("torch", "diffusers", "transformers", "nag", "numpy")  # Pillow it needs, to look at what is sent
    code = f"import sys, app.api.server; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG_S)
    assert done.stdout.strip() == "[]"
