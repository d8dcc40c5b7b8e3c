"""The shapes of answers. A finished job says what was really used, not what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel

from app.artifacts.links import Links
from app.catalog import Catalog, EditTask, Model, NAGDefaults, Range
from app.errors import Conflict, Expired, ServiceError
from app.jobs import (
    Applied,
    Artifact,
    EventType,
    Generation,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    Priority,
    Result,
    Timings,
    Webhook,
)
from app.queue.listing import Page
from app.queue.load import Load

__all__ = [
    "DeletedView",
    "JobEventView",
    "JobView",
    "JobsView",
    "ModelView",
    "ModelsView",
    "QueueView",
    "all_warnings",
    "completed_result",
    "event_view",
    "job_view",
    "jobs_view",
    "model_view",
    "queue_view",
    "time_headers",
]


class Progress(BaseModel):
    """Denoising steps."""

    step: int
    steps: int


class Output(BaseModel):
    """One picture or video of a completed job.

    `url` is a path on this server, or a whole URL where the files lie in a bucket. It works without an API key until
    `url_expires_at`, in Unix seconds; asking for the job again gives a new one. `thumbnail_url` is a video's, likewise.
    """

    url: str
    url_expires_at: int
    thumbnail_url: str | None
    media_type: str
    size_bytes: int
    seed: int


class JobView(BaseModel):
    """A job and, once it is completed, the echo of what was really used. Times are Unix seconds."""

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    model: str
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
    nag: Applied | None
    batch_size: int | None
    timings: Timings | None
    warnings: tuple[str, ...]
    outputs: tuple[Output, ...]
    webhook: Webhook | None
    error: JobError | None


class PreviewView(BaseModel):
    """Picture `index` as it is about to become, seen after a step."""

    index: int
    step: int
    media_type: str
    b64_json: str


class JobEventView(BaseModel):
    """What became of a job; a field that says nothing about this type of event is left out."""

    job_id: str
    type: EventType
    at: float  # Unix seconds
    attempt: int | None = None  # of `started`
    worker: str | None = None  # of `started`
    progress: Progress | None = None  # of `progress`
    preview: PreviewView | None = None  # of `preview`
    job: JobView | None = None  # of the last event, unless the job was deleted


class JobsView(BaseModel):
    """OpenAI's list: newest first; the next page is the one `after` last_id."""

    object: Literal["list"] = "list"
    data: list[JobView]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedView(BaseModel):
    id: str
    object: Literal["job"] = "job"
    deleted: Literal[True] = True


class ModelView(BaseModel):
    """A model in OpenAI's shape, and what can be asked of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["nag-server"] = "nag-server"
    description: str
    kind: str
    family: str
    default: bool
    num_inference_steps: Range[int]
    guidance_scale: Range[float]
    width: Range[int]
    height: Range[int]
    num_frames: Range[int] | None
    fps: Range[int] | None
    prompt_max_chars: int
    nag_supported: bool
    nag: NAGDefaults | None
    edits: tuple[EditTask, ...]


class ModelsView(BaseModel):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[ModelView]


class ModelQueueView(BaseModel):
    """What waits for a model. A unit of work is a denoised pixel: of every frame, at every step, twice with CFG."""

    model: str
    queued: int
    queued_work: int
    held_work: int
    workers: int
    work_per_s: float | None
    wait_s: float | None


class QueueView(BaseModel):
    """Every model of the catalog."""

    object: Literal["list"] = "list"
    data: list[ModelQueueView]


def queue_view(loads: Iterable[Load], catalog: Catalog) -> QueueView:
    known = {each.model: each for each in loads}
    listed = [known.get(model) or Load(model, 0, 0, 0, None, 0) for model in catalog.models]
    return QueueView(
        data=[ModelQueueView(**{name: getattr(each, name) for name in ModelQueueView.model_fields}) for each in listed]
    )


def job_view(job: Job, links: Links) -> JobView:
    result, steps = job.result, job.request.steps
    return JobView(
        id=job.id,
        status=job.status,
        model=job.request.model,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        deadline_at=job.deadline_at,
        priority=job.priority,
        attempts=job.attempts,
        worker=job.worker,
        progress=Progress(step=steps if job.status is JobStatus.COMPLETED else job.step, steps=steps),
        request=job.request,
        seed=job.request.seed,
        nag=result.nag if result else None,
        batch_size=result.batch_size if result else None,
        timings=result.timings if result else None,
        warnings=all_warnings(job),
        outputs=tuple(_output(each, links) for each in (result.artifacts if result else ())),
        webhook=job.webhook,
        error=job.error,
    )


def jobs_view(page: Page, links: Links) -> JobsView:
    ids = [job.id for job in page.jobs]
    return JobsView(
        data=[job_view(job, links) for job in page.jobs],
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=page.has_more,
    )


def event_view(event: JobEvent, job: Job, ended: Job | None, links: Links) -> JobEventView:
    """`ended` is the job after its terminal event."""
    data = event.data
    return JobEventView(
        job_id=job.id,
        type=event.type,
        at=event.at,
        attempt=data.get("attempt"),
        worker=data.get("worker"),
        progress=Progress(step=data["step"], steps=job.request.steps) if event.type is EventType.PROGRESS else None,
        preview=PreviewView.model_validate(data) if event.type is EventType.PREVIEW else None,
        job=None if ended is None else job_view(ended, links),
    )


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


def all_warnings(job: Job) -> tuple[str, ...]:
    """What the API left out, then what the worker did; each once."""
    return tuple(dict.fromkeys(job.warnings + (job.result.warnings if job.result else ())))


def model_view(model: Model, catalog: Catalog, created: int) -> ModelView:
    shared: dict[str, Any] = {
        name: getattr(model, name) for name in ModelView.model_fields.keys() & type(model).model_fields.keys()
    }
    return ModelView(
        **shared, created=created, default=model.id == catalog.default, nag_supported=model.nag is not None
    )


def completed_result(job: Job) -> Result:
    """The result, or the error that stands in its place."""
    match job.status:
        case JobStatus.QUEUED | JobStatus.IN_PROGRESS:
            raise Conflict(f"job {job.id} is {job.status}", code="not_ready", retry_after_s=1)
        case JobStatus.CANCELLED:
            raise Conflict(f"job {job.id} was cancelled", code="cancelled")
        case JobStatus.EXPIRED:
            raise Expired(f"job {job.id} has expired")
    if job.result is None:
        error = job.error or JobError("internal_error", "the job failed without saying why")
        raise ServiceError(error.message, code=error.code)
    return job.result


def time_headers(result: Result) -> dict[str, str]:
    """Milliseconds in the queue and at work."""
    times = result.timings
    inference_ms = times.encode_ms + times.denoise_ms + times.decode_ms
    return {"x-queue-time": f"{times.queue_ms:.1f}", "x-inference-time": f"{inference_ms:.1f}"}
