"""Claims jobs for the room there is: reads the queue, plans, and leases what was planned."""

from __future__ import annotations

from collections.abc import Mapping

from app.jobs import Job
from app.queue.queue import Queue
from app.worker.jobs.planner import Rules, plan
from app.worker.protocol import Room

__all__ = ["claim"]


async def claim(queue: Queue, worker: str, rooms: Mapping[str, Room], rules: Rules) -> list[Job]:
    """Leases jobs of the first model whose waiting jobs fit its room; empty if there are none.

    Do not cancel this call: see Queue.claim.
    """
    models = [model for model, room in rooms.items() if room.free > 0]
    while models:
        waiting = await queue.snapshot(*models)
        planned = plan(waiting.jobs, waiting.turns, rooms[waiting.model], waiting.now_ms, rules)
        if planned.ids:
            if jobs := await queue.claim(worker, waiting.model, planned.ids, planned.turns):
                return jobs
            continue  # another worker was quicker with all of them
        if planned.needs_idle:
            break
        models = models[models.index(waiting.model) + 1 :]
    return []
