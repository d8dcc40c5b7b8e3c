"""Claiming as most tests want it: jobs of the embedded model's size by their number, and no coalescing window."""

from __future__ import annotations

from collections.abc import Sequence

from app.jobs import Job
from app.queue.queue import Queue
from app.worker import claim as worker
from app.worker.planner import Rules

PICTURE = 64 * 64  # units of Generation.cost
RULES = Rules(window_ms=0, oldest_wait_ms=60_000)


async def claim(queue: Queue, name: str, model: str | Sequence[str], pictures: int, timeout_s: float) -> list[Job]:
    """Jobs that worker `name` now holds, of at most so many pictures of 64 pixels; [] after `timeout_s`."""
    models = [model] if isinstance(model, str) else model
    claimed = await worker.claim(queue, name, dict.fromkeys(models, pictures * PICTURE), RULES, timeout_s)
    return [] if claimed is None else list(claimed.jobs)
