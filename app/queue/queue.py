"""The queue: jobs and their leases, in Redis.

A job's life is `submit → claim → (heartbeat …) → finish | fail`, with `release` and `maintenance.reap` back to the
queue, and `cancel` and `maintenance.expire` out of it at any time. Each transition is one atomic script in `scripts/`;
times are the Redis server's own, so no two clocks are compared.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Final

from redis.asyncio import Redis

from app.asyncio_utils import Signal
from app.catalog import is_uploaded
from app.errors import Conflict, InvalidParameter, QueueFull, RateLimitExceeded
from app.jobs import Job, JobError, JobStatus, Result
from app.logs import Log
from app.metrics.service import QueueStats
from app.queue import embedded
from app.queue.address import parse_address
from app.queue.connection import check_requirements, open_redis
from app.queue.events import Events, EventStream
from app.queue.keys import Keys
from app.queue.limits import ConcurrencyLimiter, RateLimiter
from app.queue.maintenance import DeadLetters, Maintenance
from app.queue.registry import Registry
from app.queue.scripts import Scripts
from app.queue.sdapi import SdapiState
from app.queue.serialization import job_from_fields, pairs, to_json
from app.queue.snapshot import FairShareState, QueueSnapshot
from app.queue.stats import QueueLoad, read_loads, read_stats, retry_after_s
from app.queue.uploads import FileRegistry, LoraRegistry
from app.queue.webhooks import Webhooks
from app.settings import Settings

__all__ = ["JobPage", "Queue"]

#: Time constant of the measured speed, in a worker's time: it evens out single jobs and follows a change of load.
RATE_FADES_MS = 60_000
#: Statuses of a job that was deliberately taken from a live worker; "" is that of a deleted one.
WITHDRAWN = frozenset({JobStatus.CANCELLED, JobStatus.EXPIRED, ""})
LOOKED_AT_A_CALL = 500  # entries of a tenant's list; bounds the time one script holds the server
_log = Log("queue")


@dataclass(frozen=True)
class JobPage:
    """Part of a tenant's jobs. `has_more`: whether others follow them."""

    jobs: Sequence[Job]
    has_more: bool


class Queue:
    """One per process and event loop. Raises redis.exceptions.RedisError when the server cannot be reached."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self.keys: Final = Keys(settings.redis_namespace)
        self._events = Events(redis, self.keys)
        self._lease_ms: Final = round(settings.lease_s * 1000)
        self._scripts = Scripts(redis, self.keys, round(settings.retention_s * 1000))
        self.concurrency: Final = ConcurrencyLimiter(self._scripts)
        self.dead: Final = DeadLetters(self._scripts)
        self.files: Final = FileRegistry(self._scripts, settings.files_max_bytes)
        self.loras: Final = LoraRegistry(self._scripts)
        self.maintenance: Final = Maintenance(self._scripts, settings.max_attempts)
        self.rate_limiter: Final = RateLimiter(redis.connection_pool, self.keys)
        self.registry: Final = Registry(self._scripts)
        self.sdapi: Final = SdapiState(self._scripts)
        self.webhooks: Final = Webhooks(self._scripts, self._events, self.keys)

    @classmethod
    def connect(cls, settings: Settings, url: str | None = None) -> Queue:
        """Connects to `url`, else settings.redis_url, else the embedded server's socket in the data folder.

        Nothing is sent before the first call.
        """
        return cls(open_redis(parse_address(url or settings.redis_url or embedded.url(settings))), settings)

    @classmethod
    async def check(cls, settings: Settings) -> None:
        """Raises RequirementError if Redis cannot serve as the queue as it is set up; see check_requirements."""
        queue = cls.connect(settings)
        try:
            await check_requirements(queue._redis, queue._scripts, queue.keys)
        finally:
            await queue.close()

    async def close(self) -> None:
        """Closes every connection."""
        await self._events.close()
        await self._redis.aclose()

    async def ping(self) -> bool:
        """Returns True if the server answers."""
        return bool(await self._redis.ping())

    async def submit(
        self,
        job: Job,
        *,
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
        fingerprint: str | None = None,
        api_key: str | None = None,
        pending_jobs: int | None = None,
        takes_orphan: bool = False,
    ) -> Job:
        """Stores and queues a job; returns it as stored, with the server's created_at and deadline_at.

        It expires `deadline_s` after this, settings.deadline_max_s at the latest. With an idempotency key that was
        used before and whose job is still kept, returns that earlier job (its id differs from `job.id`); a retried
        call with the same id returns what is stored. With `takes_orphan`, returns the job of an equal request of the
        tenant, by the fingerprint, whose client has left it (see `mark_orphan`), each such job once.
        Raises errors.Conflict if the key came with another fingerprint; errors.QueueFull at settings.queue_limit
        and settings.queue_limit_per_model; errors.InvalidParameter for an uploaded LoRA that was deleted meanwhile;
        errors.RateLimitExceeded if `pending_jobs` of this API key have not ended.
        """
        request, most_s = job.request, self._settings.deadline_max_s
        answer = await self._scripts.run(
            "submit",
            id=job.id,
            model=request.model,
            tenant=job.tenant,
            rank=job.priority.rank,
            cost=request.cost,
            work=request.work,
            request=to_json(request),
            warnings=json.dumps(job.warnings),
            deadline_ms=round(min(most_s, most_s if deadline_s is None else deadline_s) * 1000),
            trace=job.trace,
            loras=[use.id for use in request.loras if is_uploaded(use.id)],
            most_queued=self._settings.queue_limit,
            most_queued_of_model=self._settings.queue_limit_per_model,
            fingerprint=fingerprint or "",
            idempotency=self.keys.idempotency(job.tenant, idempotency_key) if idempotency_key else None,
            api_key=api_key or None,
            most_pending=pending_jobs,
            webhook=None if job.webhook is None else to_json(job.webhook),
            orphans=self.keys.orphans(job.tenant, fingerprint or "") if takes_orphan else None,
        )
        if answer[0] == "conflict":
            raise Conflict("this Idempotency-Key was used with another request", code="idempotency_conflict")
        if answer[0] == "no_lora":
            raise InvalidParameter(
                f"loras: {answer[1]} was deleted meanwhile; name another one, or none",
                param="loras",
                code="lora_not_found",
            )
        if answer == ["full", "key"]:
            retry_s = retry_after_s(await self.loads())
            raise RateLimitExceeded(
                f"Too many unfinished jobs for this API key (limit {pending_jobs})", retry_after_s=retry_s
            )
        if answer[0] == "full":
            raise await self._full(request.model, of_all=answer[1] == "all")
        stored = job_from_fields(pairs(answer[1]))
        event = "job_queued" if answer[0] == "new" else "job_repeated"
        prompt = {"prompt": request.prompt} if self._settings.log_prompts else {}
        _log.info(event, job=stored.id, model=stored.request.model, images=stored.request.n, **prompt)
        return stored

    async def _full(self, model: str, *, of_all: bool) -> QueueFull:
        loads = [load for load in await self.loads() if of_all or load.model == model]
        retry_s = retry_after_s(loads)
        _log.warning("queue_full", model=model, of_all=of_all, retry_after_s=retry_s)
        what = "the queue" if of_all else f"the queue of {model}"
        return QueueFull(f"{what} is full; try again later", retry_after_s=retry_s)

    async def get(self, job_id: str) -> Job | None:
        """Returns the job as it is now; None if it never was or its retention has passed."""
        fields = pairs(await self._scripts.run("get", id=job_id))
        return job_from_fields(fields) if fields else None

    async def wait(self, job_id: str, timeout_s: float) -> Job | None:
        """Returns the job as soon as it has ended, else as it is after `timeout_s`; None if there is no such job."""
        async with self._events.watch(self.keys.DONE, [job_id]) as ended:
            deadline = monotonic() + timeout_s
            job = await self.get(job_id)
            while job is not None and not job.status.is_terminal and await ended.within(deadline - monotonic()):
                job = await self.get(job_id)
            return job

    async def list_jobs(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        status: JobStatus | None = None,
        models: Iterable[str] | None = None,
        oldest_first: bool = False,
    ) -> JobPage:
        """Returns at most `limit` of a tenant's jobs, the newest first unless `oldest_first`, behind the job `after`.

        `status` and `models` select among them. Raises InvalidParameter if the tenant has no job called `after`; a
        deleted one is remembered.
        """
        place = "-inf" if oldest_first else "+inf"
        if after is not None:
            score = await self._redis.zscore(self.keys.jobs_of(tenant), after)
            if score is None:
                raise InvalidParameter(f"after: no job {after!r}", param="after")
            place = f"({score:.0f}"
        jobs: list[Job] = []
        while place and len(jobs) <= limit:
            place, *more = await self._scripts.run(
                "list_jobs", tenant=tenant, place=place, status=status, models=None if models is None else list(models),
                most=limit + 1 - len(jobs), most_entries=LOOKED_AT_A_CALL, oldest_first=oldest_first,
            )  # fmt: skip
            jobs += [job_from_fields(pairs(fields)) for fields in more]
        return JobPage(jobs[:limit], len(jobs) > limit)

    def follow(self, job_id: str, after: str | None = None) -> AbstractAsyncContextManager[EventStream]:
        """Streams the events of a job behind the one with the id `after`, else from the first that is kept."""
        return self._events.follow(job_id, after)

    async def cancel(self, job_id: str, *, to_delete: bool = False) -> Job | None:
        """Ends an unfinished job and takes it from its worker; returns it as it is then, or None if there is none.

        to_delete: those who wait for its end are to see that it is being deleted.
        """
        answer = await self._scripts.run("cancel", id=job_id, to_delete=to_delete)
        if answer[0] == "unknown":
            return None
        if answer[0] == "cancelled":
            _log.info("job_cancelled", job=job_id)
        return job_from_fields(pairs(answer[1]))

    async def mark_orphan(self, job_id: str, token: str, kept_s: float) -> bool:
        """Notes that the job's client has left: the next equal request within `kept_s` takes the job over.

        `token` identifies this event among others of the job. Returns False for a job that cannot be taken over.
        """
        return bool(await self._scripts.run("orphan_add", id=job_id, token=token, ttl_ms=round(kept_s * 1000)))

    async def drop_orphan(self, job_id: str, token: str) -> bool:
        """Removes the note with this token; returns False if an equal request has taken the job over."""
        return bool(await self._scripts.run("orphan_drop", id=job_id, token=token))

    async def delete(self, job_id: str) -> Job | None:
        """Removes a job and its idempotency key, and takes it from its worker.

        Returns the job as it was, cancelled if it had not ended, or None if there is none. The caller removes its
        artifacts.
        """
        fields = pairs(await self._scripts.run("delete", id=job_id))
        if not fields:
            return None
        _log.info("job_deleted", job=job_id)
        return job_from_fields(fields)

    async def snapshot(self, *models: str) -> QueueSnapshot:
        """Reads the queue of the first of these models that has waiting jobs, otherwise that of the last."""
        return QueueSnapshot.from_json(await self._scripts.run("read_queue", models=list(models)))

    def watch_arrivals(
        self, models: Iterable[str], signal: Signal | None = None
    ) -> AbstractAsyncContextManager[Signal]:
        """Sets a signal when a job begins to wait for one of these models."""
        return self._events.watch(self.keys.QUEUED, models, signal)

    async def claim(self, worker: str, model: str, job_ids: Sequence[str], turns: FairShareState) -> list[Job]:
        """Leases those of the jobs that still wait, all of one model; if any does, stores the planner's memory `turns`.

        Do not cancel this call: leased jobs would wait for their lease to end.
        """
        answer = await self._scripts.run(
            "claim", worker=worker, model=model, lease_ms=self._lease_ms, turns=turns.to_json(), ids=list(job_ids)
        )
        jobs = [job_from_fields(pairs(fields)) for fields in answer]
        for job in jobs:
            _log.info("job_claimed", job=job.id, worker=worker, attempts=job.attempts)
        return jobs

    def watch_revocations(self, job_id: str, signal: Signal | None = None) -> AbstractAsyncContextManager[Signal]:
        """Sets a signal when the job is taken from its worker."""
        return self._events.watch(self.keys.REVOKED, [job_id], signal)

    async def heartbeat(self, worker: str, steps: Mapping[str, int]) -> list[str]:
        """Extends the leases of jobs and records the step of each; returns the ids that are no longer this worker's."""
        lost = await self._scripts.run("heartbeat", worker=worker, lease_ms=self._lease_ms, steps=list(steps.items()))
        for job_id, status in lost:
            if status in WITHDRAWN:
                _log.info("job_withdrawn", job=job_id, worker=worker, reason=status or "deleted")
            else:
                _log.warning("lease_lost", job=job_id, worker=worker, status=status)
        return [job_id for job_id, _ in lost]

    async def publish_preview(
        self, worker: str, job_id: str, step: int, index: int, image: bytes, media_type: str
    ) -> bool:
        """Publishes image `index` as it looks after a step. Returns False if the lease was lost."""
        preview = {"step": step, "index": index, "media_type": media_type, "b64_json": b64encode(image).decode()}
        return bool(await self._scripts.run("publish_preview", worker=worker, id=job_id, preview=json.dumps(preview)))

    async def finish(self, worker: str, job_id: str, result: Result) -> bool:
        """Completes a job. Returns False if the lease was lost: a result is written once."""
        finished = await self._scripts.run(
            "finish", worker=worker, id=job_id, result=to_json(result), fade_ms=RATE_FADES_MS
        )
        _log.info("job_completed" if finished else "result_refused", job=job_id, worker=worker)
        return bool(finished)

    async def fail(self, worker: str, job_id: str, error: JobError) -> bool:
        """Fails a job for good. Returns False if the lease was lost."""
        finished = await self._scripts.run("fail", worker=worker, id=job_id, error=to_json(error))
        _log.info("job_failed" if finished else "error_refused", job=job_id, worker=worker, code=error.code)
        return bool(finished)

    async def release(self, worker: str, job_ids: Sequence[str]) -> None:
        """Returns jobs to their old place in the queue, ahead of all later ones; no attempt is counted."""
        for job_id in await self._scripts.run("release", worker=worker, ids=list(job_ids)):
            _log.info("job_released", job=job_id, worker=worker)

    async def loads(self) -> list[QueueLoad]:
        """Reads the load of each model that ever had a queue."""
        warm = [model for models in (await self.registry.workers()).values() for model in models]
        return await read_loads(self._scripts, warm)

    async def stats(self) -> QueueStats:
        """Reads the metrics counted in Redis and the state of the queues."""
        return await read_stats(self._scripts, self._redis)

    async def depth(self, model: str) -> int:
        """Counts the jobs that wait for this model."""
        return int(await self._redis.zcard(self.keys.queue(model)))
