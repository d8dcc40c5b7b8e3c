"""Claiming as most tests want it: jobs of the embedded model's size by their number, on an idle worker."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from app.jobs import Job
from app.queue.queue import Queue
from app.worker.jobs import claim as worker
from app.worker.jobs.planner import Rules
from app.worker.protocol import Room

PICTURE = 64 * 64  # units of Generation.cost
RULES = Rules(oldest_wait_ms=60_000)


async def claim(queue: Queue, name: str, model: str | Sequence[str], pictures: int, timeout_s: float) -> list[Job]:
    """Jobs that worker `name` now holds, of at most so many images of 64 pixels; [] after `timeout_s`."""
    models = [model] if isinstance(model, str) else model
    rooms = dict.fromkeys(models, Room(pictures * PICTURE, pictures * PICTURE, 0))
    deadline_s = monotonic() + timeout_s
    async with queue.watch_arrivals(models) as arrived:
        while not (jobs := await worker.claim(queue, name, rooms, RULES)):
            if not await arrived.within(deadline_s - monotonic()):
                break
        return jobs
