"""Jobs whose clients disconnected while they waited: an equal request that is sent again takes such a job over.

A client behind a proxy loses its connection when the proxy times out, and sends its request again. A job is taken over
only after its client has disconnected, and by one request: equal requests that wait at the same time keep their own
jobs.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from redis.exceptions import RedisError

from app.asyncio_utils import cancel_and_wait
from app.logs import Log
from app.queue.queue import Queue

__all__ = ["KEPT_S", "OrphanedJobs"]

#: How long a job that goes on in any case can be taken over.
KEPT_S = 300.0
#: Longer than it takes to cancel a job that was not taken over.
MARGIN_S = 30.0
_log = Log("api")


class OrphanedJobs:
    """One per app. `grace_s` is how long a job waits for its request before it is cancelled."""

    def __init__(self, queue: Queue, grace_s: float) -> None:
        self._queue = queue
        self._grace_s = grace_s
        self._tasks = set[asyncio.Task[None]]()

    async def close(self) -> None:
        """Cancels no more jobs: those that are left go on, and another API may receive their requests again."""
        for task in list(self._tasks):
            await cancel_and_wait(task)

    async def keep(self, job_id: str) -> None:
        """Lets the next equal request take over a job that goes on in any case."""
        await self._note(job_id, uuid4().hex, KEPT_S)

    async def leave(self, job_id: str) -> None:
        """Cancels the job, unless an equal request takes it over within the grace."""
        token = uuid4().hex
        if not self._grace_s or not await self._note(job_id, token, self._grace_s + MARGIN_S):
            await self._queue.cancel(job_id)
            return
        task = asyncio.create_task(self._cancel(job_id, token), name="orphan")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _note(self, job_id: str, token: str, kept_s: float) -> bool:
        try:
            return await self._queue.mark_orphan(job_id, token, kept_s)
        except RedisError as error:  # such as no room for it
            _log.warning("orphan_not_noted", job=job_id, error=type(error).__name__)
            return False

    async def _cancel(self, job_id: str, token: str) -> None:
        await asyncio.sleep(self._grace_s)
        try:
            if await self._queue.drop_orphan(job_id, token):
                await self._queue.cancel(job_id)
        except RedisError as error:  # the job goes on, for nobody
            _log.warning("redis_away", error=type(error).__name__)
