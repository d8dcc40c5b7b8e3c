"""How long a model's queue is, in jobs and in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Load", "retry_after_s"]

#: A client comes back neither in a hurry nor later than the SDKs will wait.
RETRY_MIN_S, RETRY_MAX_S = 1, 120
#: Where nothing is known of the speed.
RETRY_UNKNOWN_S = 10


@dataclass(frozen=True)
class Load:
    """What waits for one model. Work is in the units of Generation.work, the speed that of one worker at work."""

    model: str
    queued: int
    queued_work: int
    held_work: int  # in progress
    work_per_s: float | None  # as measured lately; None before the first result
    workers: int  # that hold the model now

    @property
    def wait_s(self) -> float | None:
        """How long a job submitted now would wait: on average, half of what is in progress is done already.

        None where that cannot be known: nothing was measured, or nobody works.
        """
        if not self.work_per_s or not self.workers:
            return None
        return (self.queued_work + self.held_work / 2) / (self.work_per_s * self.workers)


def retry_after_s(loads: Iterable[Load]) -> int:
    """When to come back to a full queue: once the first of these has been worked off.

    Until then the workers have enough to do, and from then on there surely is room.
    """
    waits_s = [wait_s for each in loads if each.queued and (wait_s := each.wait_s) is not None]
    if not waits_s:
        return RETRY_UNKNOWN_S
    return max(RETRY_MIN_S, min(RETRY_MAX_S, round(min(waits_s) + 0.5)))
