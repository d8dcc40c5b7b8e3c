"""`top` as a process of its own, on a real Valkey."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from app.jobs import Job, JobError
from app.queue.queue import Queue
from app.queue.registry import ModelState
from app.settings import Settings
from app.worker.metrics_server import serve_metrics
from app.worker.recorder import Recorder
from tests.claiming import claim
from tests.limits import HANG_S

MODEL = "shapes-flux"


async def shown(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NAG_DATA_DIR": str(settings.data_dir), "COLUMNS": "160"}
    environment |= {"NAG_REDIS_URL": str(settings.redis_url)}
    command = [sys.executable, "-m", "app.cli", "top", "--once", "--every", "0.1", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=HANG_S,
    )  # fmt: skip


async def test_it_shows_what_waits_who_works_and_what_failed(
    settings: Settings, queue: Queue, make_job: Callable[..., Job]
) -> None:
    for name in ("job-a", "job-b", "job-c"):
        await queue.submit(make_job(name))
    await queue.registry.announce("worker-1", [MODEL], 60)
    states = {"far": ModelState("downloading", 3 * 10**9, 12 * 10**9), "near": ModelState("loading")}
    await queue.registry.announce("worker-2", [], 60, states={**states, "old": ModelState("cold")})
    held = await claim(queue, "worker-1", MODEL, 2, 1)
    await queue.fail("worker-1", held[0].id, JobError("nan_output", "no numbers, for a prompt nobody should read"))
    done = await shown(settings)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 waiting, 1 at work, 2 workers, 0 dead letters, redis ")
    (model,) = [line.split() for line in lines if line.strip().startswith(MODEL)]
    assert model[:2] + model[3:5] == [MODEL, "0/1/0", "1", "1"]
    (worker,) = [line.split() for line in lines if "worker-1" in line]
    assert worker == ["worker-1", "1", MODEL]
    (line,) = [line for line in lines if "worker-2" in line]
    assert line.split(maxsplit=2)[2].strip() == "far downloading 25% of 12.0 GB, near loading"
    (error,) = [line.split() for line in lines if "nan_output" in line]
    assert error[1:] == [held[0].id, MODEL, "nan_output"]
    assert any("waiting" in line and "wait s" in line for line in lines), "a heading is cut off"
    assert "nobody should read" not in done.stdout


async def test_it_shows_the_denoiser_calls_of_workers_that_it_can_reach(settings: Settings, queue: Queue) -> None:
    recorder, has_ended = Recorder(), asyncio.Event()
    recorder.loaded(MODEL, 1.0)
    recorder.begin_images(MODEL, 5)
    recorder.first_step(MODEL, 100.0)  # before the first look: in no mean

    async def work() -> None:
        while not has_ended.is_set():
            recorder.denoiser_call(MODEL, "nag_cfg", images=3, rows=6, pixels=1, seconds=0.1)
            recorder.first_step(MODEL, 0.25)
            await asyncio.sleep(0.01)

    with serve_metrics(recorder.registry, settings) as address:
        await queue.registry.announce("worker-1", [MODEL], 60, metrics=address)
        await queue.registry.announce("worker-2", [MODEL], 60, metrics="127.0.0.1:1")
        working = asyncio.create_task(work())
        done = await shown(settings)
        has_ended.set()
        await working
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("denoiser calls") :]
    (line,) = [line.split() for line in table.splitlines() if MODEL in line]
    assert line[:3] == ["worker-1", MODEL, "5"]
    assert float(line[3]) > 0
    assert line[4:] == ["3.00", "6.00", "0.00", "0.25"]


async def test_without_a_queue_it_says_so(settings: Settings) -> None:
    done = await shown(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nag-server: the queue cannot be reached")


async def test_the_last_errors_are_few_and_newest_first(queue: Queue, make_job: Callable[..., Job]) -> None:
    for number in range(60):
        await queue.submit(make_job(f"job-{number}"))
        for job in await claim(queue, "w", MODEL, 1, 1):
            await queue.fail("w", job.id, JobError("Not a Word!", "x"))
    errors = (await queue.stats()).last_errors
    assert [each.job for each in errors] == [f"job-{number}" for number in range(59, 9, -1)]
    assert {each.code for each in errors} == {"other"}
