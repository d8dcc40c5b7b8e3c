"""Periodic maintenance, run by every worker: expired leases, deadlines and retention; and the jobs given up as lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from app.jobs import Job, JobError
from app.logs import Log
from app.queue.scripts import Scripts
from app.queue.serialization import job_from_fields, pairs, to_json

__all__ = ["DeadLetters", "Maintenance"]

ENDED_A_CALL = 100  # leases or deadlines; bounds the time one script holds the server
REPAIRED_PER_CALL = 100  # open jobs, and keys
DEAD_KEPT = 1000  # dead letters; beyond them the oldest is dropped
_log = Log("queue")


class Maintenance:
    """Any number of workers may run it at once: each script finds what is left to do."""

    def __init__(self, scripts: Scripts, max_attempts: int) -> None:
        self._scripts = scripts
        self._max_attempts = max_attempts
        self._cursor, self._place = "0", 0  # where `repair_indexes` goes on
        self._has_mended = False

    async def reap(self, spared: Collection[str] = ()) -> int:
        """Queues the jobs again whose lease has ended, as Queue.release does, but the attempt counts.

        A job that settings.max_attempts workers have lost fails as `worker_lost` and is a dead letter. `spared` are
        the ids of the jobs that the caller runs: after it stood still, it renews their leases.

        Returns:
            how many leases had ended.

        """
        error = to_json(JobError("worker_lost", f"lost by {self._max_attempts} workers, one after the other"))
        count = 0
        while True:
            reaped = await self._scripts.run(
                "reap", max_attempts=self._max_attempts, error=error, most=ENDED_A_CALL, most_dead=DEAD_KEPT,
                spared=list(spared),
            )  # fmt: skip
            for job_id, worker, status in reaped:
                _log.warning("worker_lost", job=job_id, worker=worker, status=status)
            count += len(reaped)
            if len(reaped) < ENDED_A_CALL:
                return count

    async def expire(self) -> int:
        """Ends the jobs whose deadline has passed, waiting or held; returns how many."""
        count = 0
        while True:
            expired = await self._scripts.run("expire", most=ENDED_A_CALL)
            for job_id in expired:
                _log.info("job_expired", job=job_id)
            count += len(expired)
            if len(expired) < ENDED_A_CALL:
                return count

    async def repair_indexes(self) -> int:
        """Drops open jobs whose data the server has evicted, and indexes those again that the queue has lost.

        The first call takes all open jobs, since an older version may have indexed them otherwise; each later one takes
        the next part of them. Returns how many were dropped.
        """
        count = 0
        while True:
            self._cursor, self._place, *gone = await self._scripts.run(
                "repair_indexes", cursor=self._cursor, first=self._place, most=REPAIRED_PER_CALL
            )
            for job_id in gone:
                _log.error("job_data_gone", job=job_id)
            count += len(gone)
            self._has_mended = self._has_mended or not self._place
            if self._has_mended:
                return count

    async def forget(self) -> int:
        """Removes jobs whose retention has passed from their tenants' lists; returns how many."""
        count = 0
        while True:
            forgotten = int(await self._scripts.run("forget", most=ENDED_A_CALL))
            count += forgotten
            if forgotten < ENDED_A_CALL:
                return count


class DeadLetters:
    """The jobs given up as lost, for an operator. A job stays as long as it is on this list, whatever the retention."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def list(self, limit: int = DEAD_KEPT) -> Sequence[Job]:
        """Returns them, newest first; `completed_at` is when a job was given up."""
        return [job_from_fields(pairs(fields)) for fields in await self._scripts.run("dead_list", most=limit)]

    async def replay(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Queues them again under their ids with no attempt counted; returns those that were on the list."""
        replayed: Sequence[str] = await self._scripts.run("dead_replay", ids=list(job_ids))
        for job_id in replayed:
            _log.info("dead_replayed", job=job_id)
        return replayed

    async def drop(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Removes them from the list; from now on they are kept for the retention. Returns those that were on it."""
        dropped: Sequence[str] = await self._scripts.run("dead_drop", ids=list(job_ids))
        for job_id in dropped:
            _log.info("dead_dropped", job=job_id)
        return dropped
