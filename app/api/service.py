"""What every router shares, and the one way in which a request becomes a queued job."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from time import monotonic
from typing import Annotated

from fastapi import Depends, Request

from app.api.middleware.auth import NOBODY, Caller
from app.api.middleware.public_address import public_address
from app.api.orphaned_jobs import OrphanedJobs
from app.api.requests.fields import warned_parameters
from app.api.requests.generation import GenerationBody
from app.api.requests.validation import end_dry_run
from app.api.webhooks.validation import asked_webhook
from app.artifacts import Artifacts
from app.artifacts.signed_urls import Links
from app.asyncio_utils import cancel_and_wait
from app.auth import Scope
from app.catalog import Catalog, UploadedLora
from app.errors import Forbidden, InvalidApiKey, InvalidParameter, NotFound
from app.jobs import InputFile, InputFiles, Job, JobStatus
from app.logs import Log
from app.metrics import Metrics
from app.queue.queue import JobPage, Queue
from app.queue.uploads import UploadedFile
from app.settings import Settings

__all__ = ["LOOK_S", "Here", "Service", "wait_asked_s"]

#: Between two looks at whether the client has left or the server is to end; well below the time that gives requests.
LOOK_S = 0.5
WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)
FILE_ID = re.compile(r"file-[0-9a-f]{32}")
#: Any visible ASCII, as a header can carry it; longer than every UUID and hash in use.
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

_log = Log("api")


@dataclass(frozen=True)
class Service:
    """The parts behind the routes, one an app, and the caller of one request: no other tenant's job gets past it."""

    settings: Settings
    catalog: Catalog
    queue: Queue
    artifacts: Artifacts
    metrics: Metrics
    started_at: int
    links: Links
    stopping: Callable[[], bool]  # whether the server was told to end
    orphans: OrphanedJobs
    decoder: Executor  # one thread: images are decoded one at a time, and their memory is used again
    caller: Caller = NOBODY

    async def submit(
        self, job: Job, body: GenerationBody, request: Request, inputs: InputFiles, *, held: bool = False
    ) -> tuple[Job, bool]:
        """Returns the queued job and True, or the earlier job of the same idempotency key and False. The request that
        is `held` for its result may take over the job of an equal one whose client has left; see app.api.orphaned_jobs.

        What it starts from is stored before it is queued, and removed if it is not queued after all.

        Raises Conflict for a key that was used with another body, QueueFull, Unavailable.
        """
        end_dry_run(request)
        key = request.headers.get("idempotency-key")
        if key is not None and IDEMPOTENCY_KEY.fullmatch(key) is None:
            raise InvalidParameter(
                "Idempotency-Key: must be 1 to 255 visible ASCII characters", param="Idempotency-Key"
            )
        asked = replace(
            job,
            tenant=self.tenant,
            webhook=asked_webhook(body.webhook, self.settings),
            trace=getattr(request.state, "traceparent", ""),
        )
        files = asked.request.inputs
        queued = False
        try:
            for file in files:
                await self.artifacts.save(file.name, inputs[file.name])
            # A request with a key says itself which job is its own.
            takes_orphan = key is None and held
            job = await self.queue.submit(
                asked,
                deadline_s=body.deadline_s,
                idempotency_key=key,
                api_key=None if self.caller.key is None else self.caller.key.id,
                pending_jobs=None if self.caller.key is None else self.caller.key.pending_jobs,
                fingerprint=_fingerprint(request.url.path, body, files) if takes_orphan or key is not None else None,
                takes_orphan=takes_orphan,
            )
            queued = job.id == asked.id
        finally:
            if not queued:
                await self.artifacts.delete(*(file.name for file in files))
        if queued and job.warnings:
            parameters = warned_parameters(job.warnings)
            self.metrics.record_warnings(parameters)
            _log.info("request_warnings", job=job.id, model=job.request.named_model, parameters=",".join(parameters))
        return job, queued

    def find_faults(self, body: GenerationBody) -> list[InvalidParameter]:
        """Returns what is wrong with a request's values whatever its model is."""
        faults = list[InvalidParameter]()
        most_s = self.settings.deadline_max_s
        if body.deadline_s is not None and body.deadline_s > most_s:
            message = f"deadline_s: must be at most {most_s:g}, not {body.deadline_s:g}"
            faults.append(InvalidParameter(message, param="deadline_s"))
        try:
            asked_webhook(body.webhook, self.settings)
        except InvalidParameter as fault:
            faults.append(fault)
        return faults

    @property
    def tenant(self) -> str:
        """The caller's. Raises InvalidApiKey."""
        if self.caller.tenant is None:
            raise InvalidApiKey("an API key is needed", code="missing_api_key")
        return self.caller.tenant

    def require_admin(self, purpose: str) -> None:
        """Raises Forbidden if the caller's key lacks the scope; if no keys are asked for, everybody has it."""
        key = self.caller.key
        if key is not None and Scope.ADMIN not in key.scopes:
            raise Forbidden(f"the API key {key.id} lacks the scope {Scope.ADMIN}, which it needs {purpose}")

    async def uploaded_loras(self) -> dict[str, UploadedLora]:
        """Returns the uploaded LoRAs that the caller may name, by id and by id with version. The caller's own go before
        those of all tenants.
        """
        loras = await self.queue.loras.visible(self.tenant)
        return {lora.use_id: lora for lora in loras} | {lora.id: lora for lora in loras}

    async def loras_for(self, body: GenerationBody) -> dict[str, UploadedLora]:
        """Returns `uploaded_loras` for a request that names any; otherwise the queue is not asked."""
        return await self.uploaded_loras() if body.loras else {}

    async def wait(
        self, job: Job, timeout_s: float, cancel_without: Request | None = None, keep_without: Request | None = None
    ) -> Job:
        """Returns the job when it has finished, or as it stands after `timeout_s`, when the server is told to end or
        the client has left.

        Once the client of the request `cancel_without` has left, the job is cancelled, unless the same request comes
        again soon; once that of `keep_without` has, the job goes on. A job that has not finished in time goes on.
        Raises NotFound once the job's deletion has begun.
        """
        client = keep_without if cancel_without is None else cancel_without
        waiting = asyncio.create_task(self._ended(job.id, timeout_s))
        leaving = None if client is None else asyncio.create_task(_has_left(client))
        tasks = {waiting} if leaving is None else {waiting, leaving}
        try:
            while not any(task.done() for task in tasks) and not self.stopping():
                await asyncio.wait(tasks, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            ended = waiting.result() if waiting.done() else None
            latest = await self.follow(job.id) if ended is None else self._refuse_deleted(ended)
            has_left = leaving is not None and leaving.done()
            would_cancel = cancel_without is not None and not latest.status.is_terminal
            if has_left and would_cancel:
                await self.orphans.leave(job.id)
            elif has_left or would_cancel:
                await self.orphans.keep(job.id)
        finally:
            for task in tasks:
                await cancel_and_wait(task)
        return latest

    async def _ended(self, job_id: str, timeout_s: float) -> Job | None:
        """Returns the job when it has finished, or as it stands after `timeout_s`; None once there is no such job,
        which is looked for now and then, as Redis may have lost it.
        """
        deadline = monotonic() + timeout_s
        while True:
            job = await self.queue.wait(job_id, min(LOOK_S, deadline - monotonic()))
            if job is None or job.status.is_terminal or monotonic() >= deadline:
                return job

    async def follow(self, job_id: str) -> Job:
        """Returns the job to a client that has waited for its end. Raises NotFound once its deletion has begun."""
        return self._refuse_deleted(await self.find(job_id))

    async def cancel(self, job_id: str, *, to_delete: bool = False) -> Job:
        """Returns the job, ended: as it was, or cancelled now. Raises NotFound."""
        await self.find(job_id)
        return self._found(await self.queue.cancel(job_id, to_delete=to_delete), job_id)

    async def find(self, job_id: str) -> Job:
        """Raises NotFound."""
        return self._found(await self.queue.get(job_id), job_id)

    async def delete(self, job_id: str) -> None:
        """Remove a job, whatever it is at, and its files. Raises NotFound, ArtifactsError.

        The job goes last: if its files cannot be removed now, the caller can ask again. A result that a worker still
        makes is refused, and that worker removes its files.
        """
        job = await self.cancel(job_id, to_delete=True)
        for artifact in job.result.artifacts if job.result else ():
            await self.artifacts.delete(*artifact.names)
        await self.artifacts.delete(*(file.name for file in job.request.inputs))
        await self.queue.delete(job_id)

    async def page(
        self,
        limit: int,
        *,
        after: str | None,
        status: JobStatus | None = None,
        models: Iterable[str] | None = None,
        oldest_first: bool = False,
    ) -> JobPage:
        """Returns the caller's jobs, newest first unless it is said. Raises InvalidParameter where `after` is none of
        them.
        """
        return await self.queue.list_jobs(
            self.tenant, limit, after=after, status=status, models=models, oldest_first=oldest_first
        )

    async def find_file(self, file_id: str, param: str | None = None) -> UploadedFile:
        """Returns the caller's uploaded file. Raises NotFound, for another tenant's as well."""
        file = await self.queue.files.find(self.tenant, file_id) if FILE_ID.fullmatch(file_id) else None
        if file is None:
            raise NotFound(f"{f'{param}: ' if param else ''}no file {file_id!r}", param=param, code="file_not_found")
        return file

    def _refuse_deleted(self, job: Job) -> Job:
        return self._found(None if job.is_deleted else job, job.id)

    def _found(self, job: Job | None, job_id: str) -> Job:
        if job is None or job.tenant != self.caller.tenant:
            raise NotFound(f"no job {job_id!r}")
        return job


async def _has_left(client: Request) -> None:
    """Returns once the client of a request whose body was read has closed its connection."""
    while (await client.receive())["type"] != "http.disconnect":
        pass


def wait_asked_s(request: Request, most_s: float) -> float | None:
    """Returns the seconds of `Prefer: wait=N` (RFC 7240), at most `most_s`; None without that header."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name = preference.partition("=")[0].strip().lower()
        if name != "wait":
            continue
        match = WAIT.fullmatch(preference.partition(";")[0].strip())
        if match is None:
            raise InvalidParameter("Prefer: wait takes a whole number of seconds", param="Prefer")
        return min(float(match[1]), most_s)
    return None


def _fingerprint(path: str, body: GenerationBody, files: Sequence[InputFile]) -> str:
    """Equal for equal requests: of what was sent, before a seed is drawn."""
    digest = [",".join(f"{file.role}:{file.sha256}" for file in files)] if files else []
    text = json.dumps([path, body.model_dump(exclude_unset=True), *digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def _service(request: Request) -> Service:  # it never waits, but FastAPI runs a plain function in a thread
    service = request.app.state.service
    assert isinstance(service, Service)
    return replace(service, caller=request.state.caller, links=service.links.below(public_address(request).prefix))


Here = Annotated[Service, Depends(_service)]
