"""What ends by time alone, seen to by every worker: leases, deadlines, retention."""

from __future__ import annotations

from collections.abc import Collection

from app.jobs import JobError, to_json
from app.logs import Log
from app.queue.dead import DEAD_KEPT
from app.queue.lua import Scripts

__all__ = ["Upkeep"]

ENDED_A_CALL = 100  # leases or deadlines; bounds the time one script holds the server
MENDED_A_CALL = 100  # open jobs, and keys
_log = Log("queue")


class Upkeep:
    """By any number of workers at once: each script finds what is left to do."""

    def __init__(self, scripts: Scripts, max_attempts: int) -> None:
        self._scripts = scripts
        self._max_attempts = max_attempts
        self._cursor, self._place = "0", 0  # where `mend` goes on
        self._has_mended = False

    async def reap(self, spared: Collection[str] = ()) -> int:
        """Queues the jobs again whose lease has ended, as Queue.release does, but the attempt counts.

        A job that settings.max_attempts workers have lost fails as `worker_lost` and is a dead letter. `spared` are
        the ids of the jobs that the caller runs: after it stood still, it renews their leases.

        Returns:
            how many leases had ended.

        """
        error = JobError("worker_lost", f"lost by {self._max_attempts} workers, one after the other")
        count = 0
        while True:
            reaped = await self._scripts.run(
                "reap", self._max_attempts, to_json(error), ENDED_A_CALL, DEAD_KEPT, *spared
            )
            for job_id, worker, status in reaped:
                _log.warning("worker_lost", job=job_id, worker=worker, status=status)
            count += len(reaped)
            if len(reaped) < ENDED_A_CALL:
                return count

    async def expire(self) -> int:
        """End the jobs whose deadline has passed, waiting or held; returns how many."""
        count = 0
        while True:
            expired = await self._scripts.run("expire", ENDED_A_CALL)
            for job_id in expired:
                _log.info("job_expired", job=job_id)
            count += len(expired)
            if len(expired) < ENDED_A_CALL:
                return count

    async def mend(self) -> int:
        """Strike off open jobs whose data the server has evicted, and index those again that the queue has lost.

        The first call takes all open jobs, since an older version may have indexed them otherwise; each later one takes
        the next part of them. Returns how many were struck off.
        """
        count = 0
        while True:
            self._cursor, self._place, *gone = await self._scripts.run("mend", self._cursor, self._place, MENDED_A_CALL)
            for job_id in gone:
                _log.error("job_data_gone", job=job_id)
            count += len(gone)
            self._has_mended = self._has_mended or not self._place
            if self._has_mended:
                return count

    async def forget(self) -> int:
        """Strike jobs whose retention has passed off their tenants' lists; returns how many."""
        count = 0
        while True:
            forgotten = int(await self._scripts.run("forget", ENDED_A_CALL))
            count += forgotten
            if forgotten < ENDED_A_CALL:
                return count
