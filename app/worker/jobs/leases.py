"""Renews the leases of a worker's jobs together, each until its job ends, is withdrawn or goes back to the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from redis.exceptions import RedisError

from app.asyncio_utils import Signal
from app.logs import Log
from app.queue.queue import Queue
from app.worker.protocol import JobControl

__all__ = ["Leases"]

BEAT_S = 1.0  # between two heartbeats if no step is done; a short lease asks for more
STEP_S = 0.1  # between two heartbeats if steps are quicker
_log = Log("worker")


class Leases:
    """A job whose lease is lost is cancelled."""

    def __init__(self, worker: str, lease_s: float, queue: Queue) -> None:
        self._worker = worker
        self._beat_s = min(BEAT_S, lease_s / 3)
        self._queue = queue
        self._held: dict[str, JobControl] = {}
        self._due = Signal()  # a heartbeat is due now
        self._is_step_noted = False
        self._renewed_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._renewing = asyncio.Lock()

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._held

    @asynccontextmanager
    async def hold(self, job_id: str, control: JobControl) -> AsyncIterator[None]:
        """Renews the job's lease within the block, until `drop` or `release`; a job taken away is cancelled at once."""
        loop = asyncio.get_running_loop()

        def note_step() -> None:
            if not self._is_step_noted:
                self._is_step_noted = True
                loop.call_soon_threadsafe(self._schedule)

        self._held[job_id] = control
        try:
            async with self._queue.watch_revocations(job_id, self._due):
                self._schedule()  # finds out what was revoked before the watch began
                control.on_step = note_step
                yield
        finally:
            control.on_step = lambda: None
            if self._held.get(job_id) is control:
                del self._held[job_id]

    async def keep(self, is_stuck: Callable[[], bool]) -> None:
        """Renews all leases until the engine is stuck."""
        while not is_stuck():
            await self.renew()
            await self._due.within(self._beat_s)

    async def renew(self, job_id: str | None = None) -> None:
        """Sends one heartbeat, for one job or for all of them, which finds out what was taken away."""
        async with self._renewing:
            if job_id is None:
                if self._timer is not None:
                    self._timer.cancel()
                self._is_step_noted = False
                self._renewed_s = monotonic()
            held = self._held if job_id is None else {job_id: self._held[job_id]} if job_id in self._held else {}
            steps = {held_id: control.step for held_id, control in held.items()}
            if not steps:
                return
            try:
                lost = await self._queue.heartbeat(self._worker, steps)
            except RedisError as error:
                _log.warning("redis_away", error=type(error).__name__)
                return
            for lost_id in lost:
                if control := self._held.pop(lost_id, None):
                    control.is_cancelled = True

    async def drop(self, job_id: str) -> None:
        """Ends the renewal of a job whose end is told next: no heartbeat crosses that, which would look like a loss."""
        self._held.pop(job_id, None)
        async with self._renewing:
            pass

    async def release(self, *job_ids: str) -> None:
        """Hands back those of the jobs whose lease is held."""
        held = [job_id for job_id in job_ids if self._held.pop(job_id, None)]
        if not held:
            return
        async with self._renewing:
            try:
                await self._queue.release(self._worker, held)
            except RedisError as error:  # their leases end by themselves
                _log.warning("redis_away", error=type(error).__name__)

    def _schedule(self) -> None:
        """Makes a heartbeat due STEP_S after the last one."""
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self._renewed_s + STEP_S - monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._due.set)
