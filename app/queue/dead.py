"""The jobs given up as lost: for an operator to read, to queue again, or to strike off."""

from __future__ import annotations

from collections.abc import Sequence

from app.jobs import Job
from app.logs import Log
from app.queue.codec import job_from_fields, pairs
from app.queue.lua import Scripts

__all__ = ["DEAD_KEPT", "DeadLetters"]

DEAD_KEPT = 1000  # beyond it the oldest is struck off
_log = Log("queue")


class DeadLetters:
    """A job stays as long as it is on this list, whatever the retention."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def list(self, limit: int = DEAD_KEPT) -> Sequence[Job]:
        """Newest first; `completed_at` is when it was given up."""
        return [job_from_fields(pairs(fields)) for fields in await self._scripts.run("dead_list", limit)]

    async def replay(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Queue them again under their ids, as if none had lost them; returns those that were on the list."""
        replayed: Sequence[str] = await self._scripts.run("dead_replay", *job_ids)
        for job_id in replayed:
            _log.info("dead_replayed", job=job_id)
        return replayed

    async def drop(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Strike them off; from now on they are kept for the retention. Returns those that were on the list."""
        dropped: Sequence[str] = await self._scripts.run("dead_drop", *job_ids)
        for job_id in dropped:
            _log.info("dead_dropped", job=job_id)
        return dropped
