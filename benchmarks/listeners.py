"""How late 200 listeners at once hear of a step from one API process, in ms, and what they cost it in memory.

On an embedded Valkey of its own, with an API of its own and a worker that denoises nothing. A delay runs from just
before the worker tells of a step to the listener having read it, so it holds Redis, the API and this one process that
reads all of the streams. Every listener must hear every event once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from app.jobs import Generation, Job, JobError
from app.queue import embedded
from app.queue.queue import Queue
from app.queue.snapshot import FairShareState
from app.settings import Settings
from benchmarks import report

MODEL, WORKER = "shapes-flux", "listened-to"
COLUMNS = (
    "listeners", "jobs", "events heard", "missed or twice", "p50 ms", "p99 ms", "most ms", "API MB before", "with all",
    "API CPU ms an event",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """Of all listeners together; memory is the API process's resident set."""

    events: int
    wrong: int  # listeners that did not hear each event once and in order
    delays_ms: Sequence[float]
    before_bytes: int
    with_all_bytes: int
    cpu_s: float  # of the API process

    def percentile_ms(self, share: float) -> float:
        return sorted(self.delays_ms)[min(len(self.delays_ms) - 1, int(share * len(self.delays_ms)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--step-s", type=float, default=0.5)
    arguments = parser.parse_args()
    rows, data = [], {}
    for jobs in (1, arguments.listeners):
        heard = asyncio.run(_measured(arguments.listeners, jobs, arguments.steps, arguments.step_s))
        times = [heard.percentile_ms(share) for share in (0.5, 0.99, 1.0)]
        sizes = [size_bytes / 2**20 for size_bytes in (heard.before_bytes, heard.with_all_bytes)]
        counts = [arguments.listeners, jobs, heard.events, heard.wrong]
        cpu_ms = heard.cpu_s * 1000 / heard.events
        rows.append([*map(str, counts), *(f"{value:.1f}" for value in (*times, *sizes)), f"{cpu_ms:.2f}"])
        data[f"{jobs} jobs"] = dict(zip(COLUMNS, [*counts, *times, *sizes, cpu_ms], strict=True))
    title = f"Delay of a step's event, {arguments.steps} steps, one each {arguments.step_s:g} s"
    report.write("listeners", title, COLUMNS, rows, data, report.machine())
    return int(any(row[3] != "0" for row in rows))


async def _measured(listeners: int, jobs: int, steps: int, step_s: float) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder:
        settings = Settings(data_dir=Path(folder), redis_url=None)
        server = embedded.start(settings)
        try:
            async with api(settings) as (port, process):
                return await listen(settings, port, process, listeners, jobs, steps, step_s)
        finally:
            server.stop()


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[tuple[int, psutil.Process]]:
    """An API process on these settings' queue: its port, and itself."""
    own = {"NAG_DATA_DIR": str(settings.data_folder), "NAG_REDIS_URL": settings.redis_url or embedded.url(settings)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "api", env=os.environ | own | {"NAG_PORT": "0"}, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int((await process.stdout.readline()).decode().rpartition(":")[2]), psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def listen(
    settings: Settings, port: int, process: psutil.Process, listeners: int, jobs: int, steps: int, step_s: float
) -> Measurement:
    """So many listeners on so many jobs, which all go through their steps together."""
    queue = Queue.connect(settings)
    ids = [f"job_{i}" for i in range(jobs)]
    for job_id in ids:
        await queue.submit(_job(job_id, steps))
    before_bytes, before_s = process.memory_info().rss, sum(process.cpu_times()[:2])
    told_s: list[float] = []
    delays_ms: list[float] = []
    started = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(_listener(port, ids[i % jobs], told_s, delays_ms, started)) for i in range(listeners)]
    for _ in tasks:
        await started.acquire()
    for job_id in ids:
        assert await queue.claim(WORKER, MODEL, [job_id], FairShareState())
    for step in range(1, steps + 1):
        told_s.append(perf_counter())
        await queue.heartbeat(WORKER, dict.fromkeys(ids, step))
        await asyncio.sleep(step_s)
    with_all_bytes = process.memory_info().rss
    for job_id in ids:
        await queue.fail(WORKER, job_id, JobError("over", "the benchmark is over"))
    heard = await asyncio.gather(*tasks)
    cpu_s = sum(process.cpu_times()[:2]) - before_s
    await queue.close()
    expected = ["queued", "started", *map(str, range(1, steps + 1)), "failed"]
    wrong = sum(events != expected for events in heard)
    return Measurement(sum(map(len, heard)), wrong, delays_ms, before_bytes, with_all_bytes, cpu_s)


async def _listener(
    port: int, job_id: str, told_s: Sequence[float], delays_ms: list[float], started: asyncio.Semaphore
) -> list[str]:
    """Returns the events in the order they came, a step by its number."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n".encode())
    heard: list[str] = []
    async for line in reader:
        if not line.startswith(b"data: "):
            continue
        now_s, event = perf_counter(), json.loads(line.removeprefix(b"data: "))
        if event["type"] == "progress":
            step = event["progress"]["step"]
            delays_ms.append((now_s - told_s[step - 1]) * 1000)
            heard.append(str(step))
        else:
            heard.append(event["type"])
        if event["type"] == "queued":
            started.release()
    writer.close()
    return heard


def _job(job_id: str, steps: int) -> Job:
    request = Generation(
        model=MODEL, prompt="a small red circle", negative_prompt=None, seed=7, num_inference_steps=steps,
        guidance_scale=1.0, width=64, height=64, n=1, output_format="png", output_compression=100, nag=None,
    )  # fmt: skip
    return Job(id=job_id, request=request)


if __name__ == "__main__":
    sys.exit(main())
