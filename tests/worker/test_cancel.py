"""A cancelled job leaves the device: the rows of the real engine's denoiser calls are counted after the cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import sleep
from typing import Any

import pytest

from app.catalog import Catalog
from app.jobs import Guidance, Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.engine import pipelines
from app.worker.engine.torch_engine import TorchEngine
from app.worker.models.served_models import ServedModels
from app.worker.worker import Worker

MODEL = "shapes-flux"
STEPS = 50
#: A real model's step: far longer than a message takes from the queue to the worker.
STEP_S = 0.3
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


async def test_no_step_of_a_cancelled_job_begins_after_the_cancel(
    settings: Settings, queue: Queue, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"device": "cpu", "batch_budget": "fixed"})
    catalog = Catalog.load(settings)
    loop = asyncio.get_running_loop()
    rows: list[int] = []
    under_way = asyncio.Event()
    load = pipelines.load

    def slow_step(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        rows.append(len(arguments["hidden_states"]))
        if rows[-3:] == [2, 2, 2]:
            loop.call_soon_threadsafe(under_way.set)
            sleep(STEP_S)

    def load_slow(*arguments: Any) -> Any:
        pipe = load(*arguments)
        pipe.transformer.register_forward_pre_hook(slow_step, with_kwargs=True)
        return pipe

    monkeypatch.setattr(pipelines, "load", load_slow)
    models = ServedModels((MODEL,), (MODEL,), frozenset())
    worker = Worker(settings, queue, models, lambda recorder: TorchEngine(catalog, settings, recorder))
    for name in "ab":
        await queue.submit(make_job(name, num_inference_steps=STEPS, nag=NAG))
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(60):
            await under_way.wait()
        for name in "ab":
            await queue.cancel(name)
        begun = len(rows)
        await queue.submit(make_job("next", num_inference_steps=1))
        done = await queue.wait("next", 60)
    finally:
        worker.stop()
        await task
    assert done is not None
    assert done.status is JobStatus.COMPLETED
    assert rows[begun:] == [1]
