"""The leases of one claim: kept while it is at work, given back in the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

from redis.exceptions import RedisError

from app.jobs import Job
from app.logs import Log
from app.queue.cancel import end
from app.queue.queue import Queue
from app.worker.work import Control

__all__ = ["Leases"]

BEAT_S = 1.0  # between two heartbeats where no step is done; the lease may ask for more
STEP_S = 0.1  # between two heartbeats where steps are quicker
_log = Log("worker")


class Leases:
    """Those still held: a job has one until it ends, is taken away, or is handed back. Without any, the work stops."""

    def __init__(self, worker: str, jobs: Sequence[Job], lease_s: float, queue: Queue, control: Control) -> None:
        self._worker = worker
        self._claimed = [job.id for job in jobs]
        self._beat_s = min(BEAT_S, lease_s / 3)
        self._queue = queue
        self._control = control
        self._held = set(self._claimed)
        self._lock = asyncio.Lock()  # a heartbeat never crosses the end of a job, which it would take for a loss

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._held

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            yield
        finally:
            await end(beating)

    @contextlib.asynccontextmanager
    async def ending(self, job_id: str) -> AsyncIterator[None]:
        """Within, the job's end is told; its lease is no longer held."""
        async with self._lock:
            self._held.discard(job_id)
            yield

    async def renew(self) -> None:
        """One heartbeat now, which finds out what was taken away."""
        async with self._lock:
            if not self._held:
                return
            try:
                lost = await self._queue.heartbeat(self._worker, sorted(self._held), self._control.step)
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                return
            self._held.difference_update(lost)
            if not self._held:  # nobody wants this batch any more
                self._control.stopping = True

    async def release(self) -> None:
        """Hand back what is held."""
        async with self._lock:
            if not self._held:
                return
            job_ids = sorted(self._held)
            self._held.clear()
            try:
                await self._queue.release(self._worker, job_ids)
            except RedisError as error:  # their leases end by themselves
                _log.warning("redis_away", error=type(error).__name__)

    async def _beat(self) -> None:
        gap_s = min(STEP_S, self._beat_s)
        async with self._queue.revocations(self._claimed) as changed:
            self._control.on_step = partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)
            while True:  # at once: what was revoked before the watch began is found out here
                await self.renew()
                await asyncio.sleep(gap_s)
                await changed.within(self._beat_s - gap_s)
