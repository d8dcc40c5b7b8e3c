"""The queue: jobs, their leases, and the workers that take them, in Redis.

A job's life is `submit → claim → (heartbeat …) → finish | fail`, with `release` and `reap` back to the queue. Each
transition is one atomic script in `scripts/`; times are the Redis server's own, so no two clocks are compared.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis

from app.errors import Conflict, QueueFull
from app.jobs import Job, JobError, Result, to_json
from app.logs import Log
from app.queue import embedded, keys
from app.queue.codec import job_from_fields, pairs
from app.queue.events import Events
from app.settings import Settings

__all__ = ["Queue"]

CONNECTIONS = 64  # most to Redis a process; a caller beyond waits for one to come free
RETRY_AFTER_S = 5  # a full queue has room again as soon as one batch is claimed: seconds, not minutes
REAPED_A_CALL = 100  # bounds the time one script holds the server
DEAD_KEPT = 1000  # ids in the dead-letter list
_SCRIPTS = Path(__file__).parent / "scripts"
_log = Log("queue")


class Queue:
    """One per process and event loop. Raises redis.exceptions.RedisError when the server cannot be reached."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._events = Events(redis)
        self._lease_ms: Final = round(settings.lease_s * 1000)
        self._retention_ms: Final = round(settings.retention_s * 1000)
        header = keys.lua_header() + "\n" + (_SCRIPTS / "common.lua").read_text()
        self._scripts = {
            path.stem: redis.register_script(f"{header}\n{path.read_text()}")
            for path in _SCRIPTS.glob("*.lua")
            if path.stem != "common"
        }

    @classmethod
    def connect(cls, settings: Settings, url: str | None = None) -> Queue:
        """The queue at `url`, else settings.redis_url, else the embedded server's socket in the data folder.

        Nothing is sent before the first call.
        """
        pool = BlockingConnectionPool.from_url(
            url or settings.redis_url or embedded.url(settings), decode_responses=True, max_connections=CONNECTIONS
        )
        return cls(Redis.from_pool(pool), settings)

    async def close(self) -> None:
        """Close every connection."""
        await self._events.close()
        await self._redis.aclose()

    async def ping(self) -> bool:
        """True when the server answers."""
        return bool(await self._redis.ping())

    async def submit(self, job: Job, *, idempotency_key: str | None = None, fingerprint: str | None = None) -> Job:
        """Store and queue a job, and return it as stored, with the server's created_at.

        With an idempotency key that was used before and whose job is still kept, returns that earlier job (its id
        differs from `job.id`); a retried call with the same id returns what is stored.
        Raises errors.Conflict when the key came with another fingerprint; errors.QueueFull at settings.queue_limit.
        """
        answer = await self._run(
            "submit", job.id, job.request.model, job.request.batch_key, job.request.n, to_json(job.request),
            json.dumps(job.warnings), keys.idempotency(idempotency_key) if idempotency_key else "", fingerprint or "",
            self._settings.queue_limit,
        )  # fmt: skip
        if answer[0] == "conflict":
            raise Conflict("this Idempotency-Key was used with another request", code="idempotency_conflict")
        if answer[0] == "full":
            _log.warning("queue_full", model=job.request.model, limit=self._settings.queue_limit)
            raise QueueFull("the queue is full; try again later", retry_after_s=RETRY_AFTER_S)
        stored = job_from_fields(pairs(answer[1]))
        event = "job_queued" if answer[0] == "new" else "job_repeated"
        _log.info(event, job=stored.id, model=stored.request.model, pictures=stored.request.n)
        return stored

    async def get(self, job_id: str) -> Job | None:
        """The job as it stands; None when it never was or its retention has passed."""
        fields = cast(dict[str, str], await self._redis.hgetall(keys.job(job_id)))
        return job_from_fields(fields) if fields else None

    async def wait(self, job_id: str, timeout_s: float) -> Job | None:
        """The job as soon as it has ended, else as it stands after `timeout_s`; None when there is no such job."""
        async with self._events.watch(keys.DONE, [job_id]) as ended:
            deadline = monotonic() + timeout_s
            job = await self.get(job_id)
            while job is not None and not job.status.terminal and await _set_before(deadline, ended):
                job = await self.get(job_id)
            return job

    async def claim(self, worker: str, model: str | Sequence[str], limit: int, timeout_s: float) -> list[Job]:
        """Lease the job that has waited longest and those behind it with the same batch_key; [] after `timeout_s`.

        `limit` counts pictures (request.n); the first job is taken whatever its n. Several models are tried in the
        order given. Do not cancel this call: jobs already leased would wait for their lease to end.
        """
        models = [model] if isinstance(model, str) else list(model)
        async with self._events.watch(keys.QUEUED, models) as queued:
            deadline = monotonic() + timeout_s
            while True:
                for each in models:
                    answer = await self._run("claim", worker, each, limit, self._lease_ms)
                    if jobs := [job_from_fields(pairs(fields)) for fields in answer]:
                        for job in jobs:
                            _log.info("job_claimed", job=job.id, worker=worker, attempts=job.attempts, batch=len(jobs))
                        return jobs
                if not await _set_before(deadline, queued):
                    return []

    async def heartbeat(self, worker: str, job_ids: Sequence[str], step: int) -> list[str]:
        """Extend the leases and record the step; returns the ids that are no longer this worker's."""
        lost: list[str] = await self._run("heartbeat", worker, step, self._lease_ms, *job_ids)
        for job_id in lost:
            _log.warning("lease_lost", job=job_id, worker=worker)
        return lost

    async def finish(self, worker: str, job_id: str, result: Result) -> bool:
        """Complete a job. False when the lease was lost: a result is written once."""
        done = bool(await self._run("finish", worker, job_id, to_json(result), self._retention_ms))
        _log.info("job_completed" if done else "result_refused", job=job_id, worker=worker)
        return done

    async def fail(self, worker: str, job_id: str, error: JobError) -> bool:
        """Fail a job for good. False when the lease was lost."""
        done = bool(await self._run("fail", worker, job_id, to_json(error), self._retention_ms))
        _log.info("job_failed" if done else "error_refused", job=job_id, worker=worker, code=error.code)
        return done

    async def release(self, worker: str, job_ids: Sequence[str]) -> None:
        """Hand jobs back to their old place in the queue, ahead of all that came later; no attempt is counted."""
        for job_id in await self._run("release", worker, *job_ids):
            _log.info("job_released", job=job_id, worker=worker)

    async def reap(self) -> int:
        """Requeue the jobs whose lease has ended, as `release` does but counted; after settings.max_attempts fail them
        as `worker_lost`, noted in the dead-letter list. Returns how many leases had ended.
        """
        error = JobError("worker_lost", f"lost by {self._settings.max_attempts} workers, one after the other")
        reaped = await self._run(
            "reap", self._settings.max_attempts, to_json(error), self._retention_ms, REAPED_A_CALL, DEAD_KEPT
        )
        for job_id, worker, status in reaped:
            _log.warning("worker_lost", job=job_id, worker=worker, status=status)
        return len(reaped)

    async def depth(self, model: str) -> int:
        """How many jobs wait for this model."""
        return int(await self._redis.zcard(keys.queue(model)))

    async def announce(self, worker: str, models: Sequence[str], ttl_s: float) -> None:
        """Say that a worker is alive with these models warm, for `ttl_s`."""
        await self._run("announce", worker, json.dumps(list(models)), round(ttl_s * 1000))

    async def retire(self, worker: str) -> None:
        """Take a worker out of the registry."""
        await self._run("retire", worker)
        _log.info("worker_retired", worker=worker)

    async def workers(self) -> dict[str, list[str]]:
        """Workers alive now, each with its warm models."""
        return {name: json.loads(models) for name, models in pairs(await self._run("workers")).items()}

    async def _run(self, script: str, *arguments: str | int) -> Any:
        # The key only routes the script: every key it touches carries the same hash tag.
        return await self._scripts[script](keys=[keys.LEASES], args=arguments)


async def _set_before(deadline: float, event: asyncio.Event) -> bool:
    """Whether the event was set before `deadline` (monotonic seconds); clears it."""
    try:
        async with asyncio.timeout(max(0.0, deadline - monotonic())):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
