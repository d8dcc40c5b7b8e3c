"""A cancelled job leaves the device: the real engine's steps are counted after the queue has said so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import sleep
from typing import Any

from app.worker.loop import Worker

from app.catalog import Catalog
from app.jobs import Guidance, Job, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.engine import TorchEngine
from app.worker.models import Models
from app.worker.recorder import Recorder

MODEL = "shapes-flux"
STEPS = 50
#: A real model's step: far longer than a message takes from the queue to the worker.
STEP_S = 0.3
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


async def test_at_most_one_step_begins_after_a_cancel(
    settings: Settings, queue: Queue, make_job: Callable[..., Job]
) -> None:
    settings = settings.model_copy(update={"device": "cpu", "batch_budget": "fixed"})
    catalog = Catalog.load(settings)
    running = asyncio.get_running_loop()
    begun = 0
    under_way = asyncio.Event()

    def slow_step(*_: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            running.call_soon_threadsafe(under_way.set)
        sleep(STEP_S)

    def make_engine(recorder: Recorder) -> TorchEngine:
        engine = TorchEngine(catalog, settings, recorder)
        engine.load(MODEL)
        engine.pipe(MODEL).transformer.register_forward_pre_hook(slow_step)
        return engine

    models = Models((MODEL,), (MODEL,), frozenset())
    worker = Worker(settings, queue, models, make_engine)
    for name in "ab":
        await queue.submit(make_job(name, num_inference_steps=STEPS, nag=NAG))
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(60):
            await under_way.wait()
        for name in "ab":
            await queue.cancel(name)
        at_cancel = begun
        await queue.submit(make_job("next", num_inference_steps=1))
        done = await queue.wait("next", 60)
    finally:
        worker.stop()
        await task
    assert done is not None
    assert done.status is JobStatus.COMPLETED
    assert begun - 1 - at_cancel <= 1  # the next job's own step is the last
    assert at_cancel < STEPS // 2
