"""From what waits to a leased batch: read the queue, plan, claim what was planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from app.jobs import Job
from app.logs import Log
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.planner import Rules, StopReason, plan

__all__ = ["Claimed", "claim", "rules"]

_log = Log("worker")


@dataclass(frozen=True)
class Claimed:
    """Leased jobs of one batch key, and why there are no more of them."""

    jobs: Sequence[Job]
    stop: StopReason


def rules(settings: Settings) -> Rules:
    return Rules(window_ms=settings.batch_window_ms, oldest_wait_ms=round(settings.oldest_wait_s * 1000))


async def claim(
    queue: Queue, worker: str, budgets: Mapping[str, int], rules: Rules, timeout_s: float
) -> Claimed | None:
    """The next batch of the first model that has one, else None after `timeout_s`.

    `budgets` is by model, in units of Generation.cost. Do not cancel this call: see Queue.claim.
    """
    async with queue.arrivals(budgets) as arrived:
        deadline = monotonic() + timeout_s
        while True:
            wake_s = deadline
            for model, budget in budgets.items():
                claimed, hold_s = await _claim_of(queue, worker, model, budget, rules)
                if claimed is not None:
                    return claimed
                if hold_s:
                    wake_s = min(wake_s, monotonic() + hold_s)
            if not await arrived.within(wake_s - monotonic()) and monotonic() >= deadline:
                return None


async def _claim_of(queue: Queue, worker: str, model: str, budget: int, rules: Rules) -> tuple[Claimed | None, float]:
    """A batch of this model; or none, and for how many seconds it is worth holding open."""
    while True:
        waiting = await queue.waiting(model)
        planned = plan(waiting.candidates, waiting.turns, budget, waiting.now_ms, rules)
        if planned.hold_ms or not planned.ids:
            return None, planned.hold_ms / 1000
        if jobs := await queue.claim(worker, model, planned.ids, planned.turns):
            _log.info("batch_claimed", worker=worker, model=model, jobs=len(jobs), stop=planned.stop)
            return Claimed(jobs, planned.stop), 0.0
        # Another worker was quicker with all of them.
