"""A service whose worker has two ranks, processes on one CPU, also if one of them is killed or stands still."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from app.cli.local_service import running
from tests.api.sse import events
from tests.limits import HANG_S

pytestmark = pytest.mark.slow  # starts a service

CATALOG = """
default = "flux-split"

[models.flux-split]
extends = "shapes-flux"
parallel = { ulysses = 2 }
"""
LONG = {"n": 1, "num_inference_steps": 50}  # some seconds' work for the tests to fall into


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    catalog = folder / "models.toml"
    catalog.write_text(CATALOG)
    settings = {
        "NAG_DEVICE": "cpu", "NAG_DEVICES": "0,1", "NAG_MODELS": "flux-split,shapes-flux", "NAG_LEASE_S": "3",
        "NAG_BATCH_BUDGET": "fixed", "NAG_RANK_TIMEOUT_S": "10",
    }  # fmt: skip
    with running(folder, catalog, settings=settings) as url:
        yield url


@pytest.fixture
async def api(service: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service, timeout=HANG_S, trust_env=False) as client:
        yield client


def other_rank() -> psutil.Process:
    """The process of rank 1, of the only service that this process runs."""
    below = psutil.Process().children(recursive=True)
    (found,) = [process for process in below if process.cmdline()[-2:] == ["--place", "1"]]
    return found


async def ended(api: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = {}
    async with asyncio.timeout(HANG_S):
        while job.get("status") not in ("completed", "failed"):
            await asyncio.sleep(0.1)
            job = (await api.get(f"/v1/jobs/{job_id}")).json()
    return job


async def test_images_of_two_ranks_are_those_of_one_device(api: httpx.AsyncClient) -> None:
    models = {model["id"]: model for model in (await api.get("/v1/models")).json()["data"]}
    assert models["flux-split"]["speed"]["parallel"] == {"ulysses": 2, "ring": 1, "tensor": 1}
    assert models["shapes-flux"]["speed"]["parallel"] is None
    pixels = []
    for model in ("flux-split", "shapes-flux"):
        body = {"model": model, "prompt": "a red shape", "seed": 5, "nag": {"negative_prompt": "a circle"}}
        job = (await api.post("/v1/jobs", json=body)).json()
        job = await ended(api, job["id"])
        assert (job["status"], job["nag"]["applied"]) == ("completed", True)
        file = (await api.get(f"/v1/jobs/{job['id']}/result")).content
        pixels.append(np.asarray(Image.open(io.BytesIO(file)), dtype=np.int16))
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize(("rank", "fault"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
async def test_a_job_whose_worker_lost_a_rank_is_retried_and_ends_once(
    api: httpx.AsyncClient, rank: int, fault: signal.Signals
) -> None:
    body = {"model": "flux-split", "prompt": "a red shape", "seed": 5, **LONG}
    job: dict[str, Any] = (await api.post("/v1/jobs", json=body)).json()
    async with asyncio.timeout(HANG_S):
        while not job.get("progress", {}).get("step"):
            await asyncio.sleep(0.05)
            job = (await api.get(f"/v1/jobs/{job['id']}")).json()
    assert job["status"] == "in_progress", job
    other = other_rank()
    ranks = [other.parent(), other]
    os.kill(ranks[rank].pid, fault)
    job = await ended(api, job["id"])
    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert [event.type for event in await events(api, job["id"])].count("completed") == 1
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in ranks)
