"""Single figures of both services: lone requests, an image behind a video, and the bare pipeline beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import httpx

from app.settings import Settings
from benchmarks import batching
from benchmarks.joining.load import POLL_S, RequestFailed, closed_loop, connect, run_job, stop_jobs
from benchmarks.joining.mixes import FOUR_STEPS, MIXES

__all__ = ["against_bare", "behind_video", "lone"]

PAUSE_S = 0.2  # before a lone request: the worker is idle
VIDEO_STEPS = 50
VIDEO = {"model": "shapes-wan", "prompt": "a large red circle moving left", "num_inference_steps": VIDEO_STEPS}

Urls = Mapping[str, str]  # by the name of the version


async def lone(urls: Urls, count: int) -> dict[str, dict[str, float]]:
    """Returns the medians of `queue_ms` and of the latency in ms of 4-step images, each sent to an idle service."""
    queue_ms: dict[str, list[float]] = {name: [] for name in urls}
    latency_ms: dict[str, list[float]] = {name: [] for name in urls}
    for body in FOUR_STEPS[:count]:
        for name, url in urls.items():
            async with connect(url) as http:
                await http.get("/healthz")  # opens the connection
                await asyncio.sleep(PAUSE_S)
                begun_s = perf_counter()
                job = await run_job(http, body)
                latency_ms[name].append((perf_counter() - begun_s) * 1000)
                queue_ms[name].append(job["timings"]["queue_ms"])
    return {name: {"queue_ms": median(queue_ms[name]), "latency_ms": median(latency_ms[name])} for name in urls}


async def behind_video(urls: Urls, count: int) -> dict[str, float]:
    """Returns the median latency in ms of a 4-step image that is sent while a video is denoised.

    The images are sent at steps spread over the first half of the video's.
    """
    latency_ms: dict[str, list[float]] = {name: [] for name in urls}
    for number, body in enumerate(FOUR_STEPS[:count]):
        for name, url in urls.items():
            async with connect(url) as http:
                await _denoising(http, step=1 + number * VIDEO_STEPS // (2 * count))
                begun_s = perf_counter()
                await run_job(http, body)
                latency_ms[name].append((perf_counter() - begun_s) * 1000)
                await stop_jobs(http)
    return {name: median(values) for name, values in latency_ms.items()}


def against_bare(
    urls: Urls, clients: int, seconds: float, rounds: int, row_counts: Sequence[int]
) -> tuple[dict[str, float], dict[int, float]]:
    """Returns 4-step images per second of each service in a closed loop, and of the bare pipeline by rows per call.

    Medians of rounds in which all take turns.
    """
    services: dict[str, list[float]] = {name: [] for name in urls}
    bare: dict[int, list[float]] = {rows: [] for rows in row_counts}
    for number in range(rounds):
        for name, url in urls.items():
            bodies = MIXES["a"].requests(number)
            services[name].append(asyncio.run(closed_loop(url, bodies, clients, seconds)))
        for rows in row_counts:
            bare[rows].append(len(FOUR_STEPS) / batching.bare(FOUR_STEPS, rows, Settings()))
    return (
        {name: median(values) for name, values in services.items()},
        {rows: median(values) for rows, values in bare.items()},
    )


async def _denoising(http: httpx.AsyncClient, step: int) -> None:
    """Starts a video and waits until it has done `step` steps. Raises RequestFailed."""
    job: dict[str, Any] = (await http.post("/v1/jobs", json=VIDEO)).raise_for_status().json()
    while job["progress"]["step"] < step or job["status"] == "queued":
        await asyncio.sleep(POLL_S / 5)
        job = (await http.get(f"/v1/jobs/{job['id']}")).raise_for_status().json()
        if job["status"] not in ("queued", "in_progress"):
            raise RequestFailed(f"the video is {job['status']} before an image could be sent behind it")
