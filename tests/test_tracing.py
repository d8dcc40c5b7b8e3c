"""A real API and a real worker's loop, with a scripted engine, and a collector that takes OTLP over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs import Job, JobError
from app.queue.queue import Queue
from app.settings import Settings
from app.tracing import Tracing
from app.worker.models.served_models import ServedModels
from app.worker.protocol import JobControl, JobOutput
from app.worker.worker import Worker
from benchmarks.tracing import Collector, Span, collecting, tree
from tests.api.support import serving
from tests.limits import HANG_S
from tests.worker.scripted import ScriptedEngine

pytest.importorskip("opentelemetry.sdk")
MODEL = "shapes-flux"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Engine(ScriptedEngine):
    """A job takes 30 ms, by its own account."""

    def _outcome(self, job: Job, control: JobControl) -> JobOutput | JobError:
        outcome = super()._outcome(job, control)
        if isinstance(outcome, JobError):
            return outcome
        times: dict[str, Any] = {"encode_ms": 5.0, "denoise_ms": 20.0, "decode_ms": 5.0}
        return replace(outcome, batch_size=3, begun_at=time.time(), first_step_at=time.time() + 0.005, **times)


@asynccontextmanager
async def working(settings: Settings, queue: Queue, engine: Engine) -> AsyncIterator[None]:
    worker = Worker(settings, queue, ServedModels((MODEL,), (MODEL,), frozenset()), lambda _: engine)
    worker.recorder.tracing = tracing = Tracing.open(settings, "worker")
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        assert await running == 0
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def traced(settings: Settings, queue: Queue, prompts: Sequence[str]) -> tuple[list[str], Collector]:
    """The ids of jobs that waited together, and what the collector had got when both processes had ended."""
    with collecting() as collector:
        settings = settings.model_copy(update={"otlp_endpoint": collector.url})
        async with serving(settings) as api:
            ids = []
            for prompt in prompts:
                headers = {"traceparent": CALLER} if prompt == "called" else {}
                ids.append((await api.post("/v1/jobs", json={"prompt": prompt}, headers=headers)).json()["id"])
            await api.get("/metrics")
            async with working(settings, queue, Engine()):
                for each in ids:
                    job = await queue.wait(each, HANG_S)
                    assert job is not None
                    assert job.status.is_terminal
    return ids, collector


def one(spans: Sequence[Span], name: str) -> Span:
    (found,) = [each for each in spans if each.name == name]
    return found


async def test_a_job_is_one_trace_across_api_queue_and_worker(settings: Settings, queue: Queue) -> None:
    ids, collector = await traced(settings, queue, ["a secret", "called"])
    first, second = (collector.of_job(each) for each in ids)
    print(tree(first))
    assert {each.name for each in first} == {"POST /v1/jobs", "queue", "work", "encode", "denoise", "decode", "store"}
    asked, work = one(first, "POST /v1/jobs"), one(first, "work")
    assert (asked.part, work.part) == ("nag-api", "nag-worker")
    assert {each.parent for each in first if each.name in ("queue", "work")} == {asked.id}
    assert {each.parent for each in first if each.name in ("encode", "denoise", "decode", "store")} == {work.id}
    denoise = one(first, "denoise")
    assert round((denoise.ended_ns - denoise.begun_ns) / 1e6) == 20
    assert one(first, "encode").begun_ns < denoise.begun_ns < one(first, "decode").begun_ns
    assert denoise.attributes["batch_size"] == 3
    assert denoise.attributes["first_step_wait_ms"] >= 5
    assert asked.attributes["http.response.status_code"] == 202
    assert one(second, "POST /v1/jobs").parent == CALLER.split("-")[2]
    assert {each.trace for each in second} == {CALLER.split("-")[1]} != {each.trace for each in first}


async def test_a_failed_job_says_so_and_no_span_says_a_prompt(settings: Settings, queue: Queue) -> None:
    (job,), collector = await traced(settings, queue, ["nan"])
    spans = collector.of_job(job)
    assert one(spans, "work").error == "nan_output"
    assert {each.name for each in spans} == {"POST /v1/jobs", "queue", "work"}
    _, collector = await traced(settings, queue, ["a secret"])
    assert "secret" not in str(collector.spans)
    assert "/metrics" not in str(collector.spans)


@pytest.mark.slow
async def test_a_collector_that_is_away_costs_its_traces_alone(
    settings: Settings, queue: Queue, make_job: Callable[..., Job]
) -> None:
    away = settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:1"})
    async with serving(away) as api, working(away, queue, Engine()):
        answer = await api.post("/v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=20"})
        assert answer.json()["status"] == "completed"


async def test_without_an_endpoint_nothing_is_traced(settings: Settings, queue: Queue) -> None:
    # redis-py loads the interface where it finds it, by itself.
    code = "import app.api.server, app.worker.process, sys; print('opentelemetry.exporter' in sys.modules)"
    root = Path(__file__).parents[1]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=HANG_S
    )
    assert done.stdout.strip() == "False"
    async with serving(settings) as api, working(settings, queue, Engine()):
        job = (await api.post("/v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=20"})).json()
    stored = await queue.get(job["id"])
    assert stored is not None
    assert (stored.trace, stored.status) == ("", "completed")
