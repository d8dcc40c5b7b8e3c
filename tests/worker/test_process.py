"""Real worker processes with the embedded model: killed, told to stop, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.artifacts import Artifacts
from app.jobs import Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from tests.limits import HANG_S

pytestmark = pytest.mark.slow  # starts workers

SERVE = "from app.settings import Settings; from app.worker.process import main; main(Settings())"
#: Gives the worker an engine whose load never ends, in a thread for which the interpreter would wait at its end.
STUCK = """
import sys, threading, types
from tests.worker.scripted import ScriptedEngine

class Stuck(ScriptedEngine):
    def _load(self, model):
        threading.Event().wait()

sys.modules["app.worker.engine.torch_engine"] = types.SimpleNamespace(TorchEngine=lambda *_: Stuck())
"""
LONG = 50  # steps: many seconds' work for the embedded model's callbacks to fall into
Make = Callable[..., Job]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_s": 1.0})


@pytest.fixture
def start(hasty: Settings) -> Iterator[Start]:
    """Starts worker processes; those left are killed in the end."""
    begun: list[subprocess.Popen[str]] = []
    environment = os.environ | {
        "NAG_DATA_DIR": str(hasty.data_dir),
        "NAG_REDIS_URL": str(hasty.redis_url),
        "NAG_LEASE_S": str(hasty.lease_s),
        "NAG_DEVICE": "cpu",
        "NAG_BATCH_BUDGET": "fixed",
    }

    def start(before: str = "", **settings: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, "-c", before + SERVE],
            env=environment | settings, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun.append(worker)
        return worker

    yield start
    for worker in begun:
        worker.kill()
        worker.communicate()


async def until_in_progress(queue: Queue, job_id: str) -> Job:
    async with asyncio.timeout(HANG_S):
        while (job := await queue.get(job_id)) is None or job.status is not JobStatus.IN_PROGRESS:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return job


async def test_a_killed_worker_s_job_is_finished_by_another(
    hasty: Settings, queue: Queue, start: Start, make_job: Make
) -> None:
    await queue.submit(make_job("a", n=10, num_inference_steps=LONG))
    first = start()
    held = await until_in_progress(queue, "a")
    first.kill()
    assert first.wait() == -signal.SIGKILL
    start()
    job = await queue.wait("a", HANG_S)
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    assert job.attempts == 2
    assert job.worker != held.worker
    assert job.result is not None
    assert [each.seed for each in job.result.artifacts] == list(range(7, 17))
    assert (await Artifacts.open(hasty).read(job.result.artifacts[9].name)).startswith(b"\x89PNG")


async def test_a_worker_told_to_stop_hands_back_what_takes_too_long(queue: Queue, start: Start, make_job: Make) -> None:
    await queue.submit(make_job("a", n=10, num_inference_steps=LONG))
    worker = start(NAG_DRAIN_S="0")
    await until_in_progress(queue, "a")
    worker.send_signal(signal.SIGTERM)
    _, log = await asyncio.to_thread(worker.communicate, timeout=HANG_S)
    assert worker.returncode == 0
    assert "Traceback" not in log
    assert "job_released" in log
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert await queue.registry.workers() == {}


async def test_a_worker_told_to_stop_finishes_what_does_not(queue: Queue, start: Start, make_job: Make) -> None:
    await queue.submit(make_job("a", n=4, num_inference_steps=LONG))
    worker = start(NAG_DRAIN_S="60", NAG_OVERLAP="on")
    await until_in_progress(queue, "a")
    worker.send_signal(signal.SIGTERM)
    await queue.submit(make_job("b"))
    _, log = await asyncio.to_thread(worker.communicate, timeout=HANG_S)
    assert worker.returncode == 0
    assert "Traceback" not in log
    jobs = [await queue.get(name) for name in "ab"]
    assert [job.status for job in jobs if job is not None] == [JobStatus.COMPLETED, JobStatus.QUEUED]


async def test_a_worker_is_announced_when_its_default_model_is_warm(queue: Queue, start: Start) -> None:
    worker = start(NAG_BATCH_BUDGET="measured", NAG_BATCH_SIZE="4")
    async with asyncio.timeout(HANG_S):
        while not any((await queue.registry.workers()).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    _, log = await asyncio.to_thread(worker.communicate, timeout=HANG_S)
    events = [line.split()[3] for line in log.splitlines() if "nag.worker model_" in line]
    assert events == ["model_loading", "model_loaded", "model_warm"]
    assert "images_per_s=" in log


@pytest.mark.parametrize("before", ["", STUCK], ids=["load", "stuck load"])
async def test_a_worker_told_to_stop_while_it_loads_does_not_wait(queue: Queue, start: Start, before: str) -> None:
    del queue  # emptied
    worker = start(before)
    assert worker.stderr is not None
    while "model_loading" not in await asyncio.to_thread(worker.stderr.readline):
        assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    _, log = await asyncio.to_thread(worker.communicate, timeout=HANG_S)
    assert worker.returncode == 0
    assert "Traceback" not in log
