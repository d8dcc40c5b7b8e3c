"""A bounded snapshot of the jobs that wait for a model: enough to plan a claim, without the requests' content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from app.jobs import Priority

__all__ = ["FairShareState", "PendingJob", "QueueSnapshot"]


class PendingJob(NamedTuple):  # each claim creates hundreds, which is slow with a dataclass
    """A waiting job. Cost and work are in the units of app.jobs.Generation."""

    id: str
    tenant: str
    priority: Priority
    sequence: int  # the order jobs came in
    cost: int
    work: int
    attempts: int  # workers that lost it
    queued_ms: int


@dataclass(frozen=True)
class FairShareState:
    """The planner's memory from one claim to the next, shared by all workers of a model: which tenant is next."""

    tenants: Mapping[str, float] = field(default_factory=dict)  # a ring, next first, with their credit in units of work
    overdue_last: tuple[str, ...] = ()  # tenants whose last turn went to a job that had waited too long

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True)
class QueueSnapshot:
    """The first jobs of each lane of a model's queue, at a moment of the server's clock."""

    model: str
    now_ms: int
    jobs: tuple[PendingJob, ...]
    turns: FairShareState

    @classmethod
    def from_json(cls, text: str) -> QueueSnapshot:
        """Reads the answer of `scripts/read_queue.lua`."""
        data = json.loads(text)
        pending = []
        for tenant, rank, *jobs in data["lanes"]:
            priority = list(Priority)[int(rank)]
            for job in jobs:
                job_id, *numbers = job.split(" ")
                pending.append(PendingJob(job_id, tenant, priority, *map(int, numbers)))
        turns = FairShareState()
        if data["turns"]:
            kept = json.loads(data["turns"])
            turns = FairShareState(kept["tenants"], tuple(kept["overdue_last"]))
        return cls(data["model"], int(data["now_ms"]), tuple(pending), turns)
