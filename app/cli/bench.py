"""`nag-server bench URL`: a load run against a running server, with a table of latencies."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.client import LOOPBACK, ClientError
from app.settings import Settings

__all__ = ["Outcome", "bench", "percentile"]

QUANTILES = (50, 90, 95, 99, 100)
STAGES = ("queue_ms", "encode_ms", "denoise_ms", "decode_ms")
WAIT_S = 120  # a request asks to be held this long; a longer job is asked for again
UNANSWERED = "no answer"
UNFINISHED = "not done in time"


@dataclass
class Outcome:
    """What became of the requests; seconds from when each was to be sent."""

    ends: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)  # of the completed
    stages_s: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    lasted_s: float = 0.0

    @property
    def completed_per_s(self) -> float:
        return self.ends["completed"] / self.lasted_s if self.lasted_s else 0.0


def bench(arguments: argparse.Namespace, settings: Settings) -> int:
    """Prints the table; 1 if a request did not complete. Raises ClientError if no server answers."""
    console = Console()
    outcome = asyncio.run(_run(arguments, settings, console))
    console.print(_table(outcome))
    ends = ", ".join(f"{count} {end}" for end, count in outcome.ends.most_common())
    console.print(f"{ends}; {outcome.completed_per_s:.2f} completed/s over {outcome.lasted_s:.1f} s")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(_numbers(outcome), indent=1) + "\n")
    return 0 if outcome.ends.keys() <= {"completed"} else 1


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest of the values that as many percent of them do not exceed; 100 is the largest."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


async def _run(arguments: argparse.Namespace, settings: Settings, console: Console) -> Outcome:
    names = ("model", "prompt", "num_inference_steps", "width", "height")
    body = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.negative is not None:
        body["negative_prompt"] = arguments.negative
    url = arguments.url.rstrip("/")
    headers = {} if settings.api_key is None else {"authorization": f"Bearer {settings.api_key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=arguments.clients)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=WAIT_S * 2, limits=limits, trust_env=LOOPBACK.match(url) is None
    ) as http:
        try:
            await http.get("/healthz")
        except (httpx.TransportError, httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
            raise ClientError(f"no server at {url}: {exc or type(exc).__name__}") from exc
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("requests", total=arguments.requests)
            return await _Load(http, body, arguments, lambda: progress.advance(bar)).run()


class _Load:
    def __init__(self, http: httpx.AsyncClient, body: Mapping[str, Any], arguments: argparse.Namespace, done: Any):
        self._http = http
        self._body = body
        self._arguments = arguments
        self._done = done
        self._outcome = Outcome()
        self._left = iter(range(arguments.requests))

    async def run(self) -> Outcome:
        begun_s = perf_counter()
        loop = self._run_open_loop() if self._arguments.rate else self._run_closed_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._arguments.limit_s):
                await loop
        self._outcome.lasted_s = perf_counter() - begun_s
        return self._outcome

    async def _run_closed_loop(self) -> None:
        async def client() -> None:
            for number in self._left:
                await self._one(number, perf_counter())

        async with asyncio.TaskGroup() as group:
            for _ in range(self._arguments.clients):
                group.create_task(client())

    async def _run_open_loop(self) -> None:
        """Sends requests by the clock alone. The latency of one that a slow server delays counts from its due time."""
        begun_s = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in self._left:
                due_s = begun_s + number / self._arguments.rate
                await asyncio.sleep(max(0.0, due_s - perf_counter()))
                group.create_task(self._one(number, due_s))

    async def _one(self, number: int, due_s: float) -> None:
        end = UNFINISHED
        try:
            end = await self._send_until_done({**self._body, "seed": number}, due_s)
        except httpx.HTTPError:
            end = UNANSWERED
        finally:  # cut off by the limit, too
            self._outcome.ends[end] += 1
            self._done()

    async def _send_until_done(self, body: Mapping[str, Any], due_s: float) -> str:
        """completed, or what else became of the job or of the request."""
        answer = await self._http.post("/v1/jobs", json=body, headers={"prefer": f"wait={WAIT_S}"})
        while answer.is_success and answer.json()["status"] in ("queued", "in_progress"):
            await asyncio.sleep(0.2)
            answer = await self._http.get(f"/v1/jobs/{answer.json()['id']}")
        if answer.is_error:
            return f"{answer.status_code} {_code(answer)}"
        job = answer.json()
        if job["status"] != "completed":
            return f"{job['status']} {(job.get('error') or {}).get('code', '')}".strip()
        self._outcome.latencies_s.append(perf_counter() - due_s)
        for name in STAGES:
            self._outcome.stages_s[name].append(job["timings"][name] / 1000)
        return "completed"


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


def _rows(outcome: Outcome) -> dict[str, Sequence[float]]:
    stages = {name.removesuffix("_ms"): values for name, values in outcome.stages_s.items()}
    return {"request": outcome.latencies_s, **stages}


def _table(outcome: Outcome) -> Table:
    table = Table(title="seconds, of the completed requests")
    for name in ("", *(f"p{percent}" if percent < 100 else "max" for percent in QUANTILES), "mean"):
        table.add_column(name, justify="right" if name else "left")
    for name, values in _rows(outcome).items():
        if values:
            numbers = [*(percentile(values, percent) for percent in QUANTILES), sum(values) / len(values)]
            table.add_row(name, *(f"{number:.3f}" for number in numbers))
    return table


def _numbers(outcome: Outcome) -> dict[str, Any]:
    quantiles = {
        name: {f"p{percent}": percentile(values, percent) for percent in QUANTILES}
        for name, values in _rows(outcome).items()
        if values
    }
    ends, per_s = dict(outcome.ends), outcome.completed_per_s
    return {"ends": ends, "lasted_s": outcome.lasted_s, "completed_per_s": per_s, "seconds": quantiles}
