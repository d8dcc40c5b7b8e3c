"""Reading, planning and claiming together, on a real queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.jobs import Job, Priority
from app.queue.queue import Queue
from app.queue.snapshot import FairShareState
from app.settings import Settings
from app.worker.jobs.claim import claim
from app.worker.jobs.planner import Rules
from app.worker.protocol import Room
from tests.claiming import PICTURE
from tests.queue.support import lose

MODEL = "shapes-flux"
WHOLE = 4 * PICTURE
ROOMS = {MODEL: Room(WHOLE, WHOLE, 0)}
RULES = Rules(oldest_wait_ms=60_000)
Make = Callable[..., Job]


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_jobs_of_every_kind_are_claimed_together_as_far_as_they_fit(queue: Queue, make_job: Make) -> None:
    kinds: list[dict[str, Any]] = [{"guidance_scale": 2.0}, {"num_inference_steps": 3}, {"width": 32}, {}, {}]
    for name, changes in zip("abcde", kinds, strict=True):
        await queue.submit(make_job(name, **changes))
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["a", "b", "c"]  # two rows, one, and half of one
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["d", "e"]
    assert await claim(queue, "w", ROOMS, RULES) == []


async def test_priorities_and_tenants_reach_the_planner(queue: Queue, make_job: Make) -> None:
    for i in range(6):
        await queue.submit(make_job(f"flood{i}"))
    await queue.submit(replace(make_job("high"), priority=Priority.HIGH))
    await queue.submit(replace(make_job("other"), tenant="other"))
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["high", "other", "flood0", "flood1"]


async def test_workers_take_turns_together(queue: Queue, make_job: Make) -> None:
    """The memory is the queue's: a second worker goes on where the first has left."""
    for i in range(8):
        await queue.submit(make_job(f"a{i}", n=4))
    for i in range(4):
        await queue.submit(replace(make_job(f"b{i}", n=4), tenant="other"))
    assert ids(await claim(queue, "v", ROOMS, RULES)) == ["a0"]
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["b0"]


async def test_the_first_model_with_a_job_that_fits_is_claimed(queue: Queue, make_job: Make) -> None:
    for model in ("full", "large", MODEL):
        await queue.submit(make_job(model, model=model, n=2))
    small = Room(PICTURE, WHOLE, 3)
    rooms = {"full": Room(0, WHOLE, 3), "idle": Room(WHOLE, WHOLE, 3), "large": small, MODEL: Room(WHOLE, WHOLE, 3)}
    assert ids(await claim(queue, "w", rooms, RULES)) == [MODEL]
    assert await claim(queue, "w", rooms, RULES) == []


async def test_an_overdue_job_that_must_run_alone_holds_up_every_model(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    hasty = Queue.connect(settings.model_copy(update={"lease_s": 0.02}))
    await queue.submit(make_job("lost"))
    await lose(hasty, "lost", 1)
    await hasty.close()
    await queue.submit(make_job("other", model="other"))
    busy = {MODEL: Room(WHOLE, WHOLE, 1), "other": Room(WHOLE, WHOLE, 1)}
    assert await claim(queue, "w", busy, Rules(oldest_wait_ms=-1)) == []
    assert ids(await claim(queue, "w", busy, RULES)) == ["other"]
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["lost"]


async def test_a_worker_that_was_beaten_to_all_of_it_plans_again(
    queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.submit(make_job("a", n=4))
    await queue.submit(make_job("b"))
    look, beaten = queue.snapshot, False

    async def late(*models: str) -> Any:
        nonlocal beaten
        waiting = await look(*models)
        if not beaten:
            beaten = True
            await queue.claim("quicker", MODEL, ["a"], FairShareState())
        return waiting

    monkeypatch.setattr(queue, "snapshot", late)
    assert ids(await claim(queue, "w", ROOMS, RULES)) == ["b"]
