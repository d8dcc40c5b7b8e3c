"""Clients of one service: an open loop of given arrivals, a closed loop, and a lone request."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression
from time import perf_counter
from typing import Any

import httpx

from app.cli.bench import percentile

__all__ = ["Reading", "RequestFailed", "closed_loop", "connect", "one_by_one", "open_loop", "run_job", "stop_jobs"]

WAIT_S = 60  # a request asks the API to hold its response for this long, then polls
POLL_S = 0.05
PENDING = ("queued", "in_progress")
COMPLETED, UNFINISHED = "completed", "unfinished"
RAMP_SHARE = 0.25  # part of a closed loop that is not counted
PATIENCE_S = 60.0  # by which a closed loop may exceed its duration

Body = dict[str, Any]


class RequestFailed(Exception):
    """A request that ended otherwise than completed; the message names its end."""


@dataclass
class Reading:
    """The outcome of requests. A latency is counted from the time at which the request was due.

    A request without an end when the loop was cut off has the time it had waited until then.
    """

    ends: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    lasted_s: float = 0.0  # from the begin until the last request's end

    @property
    def median_s(self) -> float:
        return percentile(self.latencies_s, 50)

    @property
    def p95_s(self) -> float:
        return percentile(self.latencies_s, 95)

    @property
    def completed_per_s(self) -> float:
        return self.ends[COMPLETED] / self.lasted_s


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a limit of connections: an open loop has as many as there are unanswered requests."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=2 * WAIT_S, limits=limits, trust_env=False) as http:
        yield http


async def run_job(http: httpx.AsyncClient, body: Body) -> dict[str, Any]:
    """Submits a request and returns its completed job. Raises RequestFailed."""
    try:
        response = await http.post("/v1/jobs", json=body, headers={"prefer": f"wait={WAIT_S}"})
        while response.is_success and response.json()["status"] in PENDING:
            await asyncio.sleep(POLL_S)
            response = await http.get(f"/v1/jobs/{response.json()['id']}")
    except httpx.HTTPError as error:
        raise RequestFailed(f"no response: {type(error).__name__}") from error
    if response.is_error:
        raise RequestFailed(f"{response.status_code} {response.text[:200]}")
    job: dict[str, Any] = response.json()
    if job["status"] != COMPLETED:
        raise RequestFailed(f"{job['status']} {(job.get('error') or {}).get('code', '')}".strip())
    return job


async def open_loop(url: str, bodies: Iterable[Body], times_s: Sequence[float], drain_s: float) -> Reading:
    """Sends each body at its time, whatever has been answered, and waits up to `drain_s` after the last of them."""
    reading = Reading()
    begun_s = perf_counter()

    async def send(body: Body, due_s: float) -> None:
        end = UNFINISHED
        try:
            await run_job(http, body)
            end = COMPLETED
        except RequestFailed as error:
            end = str(error)
        finally:  # also when cancelled
            reading.ends[end] += 1
            reading.latencies_s.append(perf_counter() - due_s)

    async with connect(url) as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(times_s, default=0.0) + drain_s), asyncio.TaskGroup() as group:
                for body, time_s in zip(bodies, times_s, strict=False):
                    due_s = begun_s + time_s
                    await asyncio.sleep(max(0.0, due_s - perf_counter()))
                    group.create_task(send(body, due_s))
        reading.lasted_s = perf_counter() - begun_s
        if reading.ends[UNFINISHED]:
            await stop_jobs(http)
    return reading


async def one_by_one(url: str, bodies: Iterable[Body]) -> Reading:
    """Sends each body when the one before it has ended: what a request takes with the device to itself."""
    reading = Reading()
    begun_s = perf_counter()
    async with connect(url) as http:
        for body in bodies:
            sent_s = perf_counter()
            await run_job(http, body)
            reading.ends[COMPLETED] += 1
            reading.latencies_s.append(perf_counter() - sent_s)
    reading.lasted_s = perf_counter() - begun_s
    return reading


async def closed_loop(url: str, bodies: Iterator[Body], clients: int, seconds: float) -> float:
    """Returns completed requests per second of `clients` that each wait for their response before the next request.

    The begin, in which the clients are not yet out of step, is not counted. If a client completes fewer than two
    requests in the rest, on average, the loop goes on for up to PATIENCE_S. Raises RequestFailed.

    Requests that join end in bursts, so the rate is the slope of the completions over time: their number by a duration
    would differ by a burst.
    """
    begun_s = perf_counter()
    ramp_s = seconds * RAMP_SHARE
    completed_at_s: list[float] = []

    async def client() -> None:
        while True:
            await run_job(http, next(bodies))
            if (time_s := perf_counter() - begun_s) >= ramp_s:
                completed_at_s.append(time_s)

    async with connect(url) as http:
        tasks = [asyncio.create_task(client()) for _ in range(clients)]
        ended: set[asyncio.Task[None]] = set()
        while not ended and (len(completed_at_s) < 2 * clients or perf_counter() - begun_s < seconds):
            if perf_counter() - begun_s > seconds + PATIENCE_S:
                break
            ended, _ = await asyncio.wait(tasks, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in ended:
            task.result()
        await stop_jobs(http)
    if len(completed_at_s) < 2:
        raise RequestFailed(f"fewer than two requests completed in {seconds + PATIENCE_S:g} s of a closed loop")
    return linear_regression(completed_at_s, range(len(completed_at_s))).slope


async def stop_jobs(http: httpx.AsyncClient) -> None:
    """Cancels every job that has not ended, and waits until the worker is free."""
    for status in PENDING:
        while jobs := (await http.get("/v1/jobs", params={"status": status, "limit": 100})).json()["data"]:
            await asyncio.gather(*(http.post(f"/v1/jobs/{job['id']}/cancel") for job in jobs))
    await run_job(http, {"model": "shapes-flux", "prompt": "a shape", "num_inference_steps": 1})
