"""A job, and a page of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from app.api.responses.page import PageView
from app.api.responses.result import BATCH_SIZE, OMITTED_IF_NONE, echo
from app.artifacts.signed_urls import Links
from app.jobs import (
    AppliedGuidance,
    Artifact,
    Generation,
    Job,
    JobError,
    JobStatus,
    LoraUse,
    Priority,
    Timings,
    Webhook,
)
from app.queue.queue import JobPage

__all__ = ["DeletedView", "JobView", "JobsView", "Progress", "job_view", "jobs_view"]


class Progress(BaseModel):
    """Denoising steps."""

    step: int
    steps: int


class Output(BaseModel):
    """One image or video of a completed job.

    `url` is a path on this server, or a whole URL if the files lie in a bucket. It works without an API key until
    `url_expires_at`, in Unix seconds; asking for the job again gives a new one. `thumbnail_url` is a video's, likewise.
    """

    url: str
    url_expires_at: int
    thumbnail_url: str | None
    media_type: str
    size_bytes: int
    seed: int


class JobView(BaseModel):
    """A job and, once it is completed, the echo of what was really used. Times are Unix seconds. `model` is the name
    that the request used; `alias_of` is there if that is an alias.
    """

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    model: str
    alias_of: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    created_at: float
    started_at: float | None
    completed_at: float | None
    deadline_at: float | None
    priority: Priority
    attempts: int
    worker: str | None
    progress: Progress
    request: Generation
    seed: int
    nag: AppliedGuidance | None
    loras: tuple[LoraUse, ...]
    batch_size: Annotated[int | None, BATCH_SIZE]
    timings: Timings | None
    warnings: tuple[str, ...]
    outputs: tuple[Output, ...]
    webhook: Webhook | None
    error: JobError | None


class JobsView(PageView[JobView]):
    """OpenAI's list: newest first; the next page is the one `after` last_id."""


class DeletedView(BaseModel):
    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True


def job_view(job: Job, links: Links) -> JobView:
    steps = job.request.steps
    return JobView(
        **echo(job),
        id=job.id,
        status=job.status,
        model=job.request.named_model,
        alias_of=None if job.request.alias is None else job.request.model,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        deadline_at=job.deadline_at,
        priority=job.priority,
        progress=Progress(step=steps if job.status is JobStatus.COMPLETED else job.step, steps=steps),
        request=job.request,
        outputs=tuple(_output(each, links) for each in (job.result.artifacts if job.result else ())),
        webhook=job.webhook,
        error=job.error,
    )


def jobs_view(page: JobPage, links: Links) -> JobsView:
    return JobsView.of(page, lambda job: job_view(job, links))


def _output(artifact: Artifact, links: Links) -> Output:
    link = links.to(artifact.name)
    return Output(
        url=link.url,
        url_expires_at=link.expires_at,
        thumbnail_url=None if artifact.thumbnail is None else links.to(artifact.thumbnail).url,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        seed=artifact.seed,
    )
