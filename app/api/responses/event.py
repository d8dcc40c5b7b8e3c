"""What becomes of a job, event by event."""

from __future__ import annotations

from pydantic import BaseModel

from app.api.responses.job import JobView, Progress, job_view
from app.artifacts.signed_urls import Links
from app.jobs import EventType, Job, JobEvent

__all__ = ["JobEventView", "event_view"]


class PreviewView(BaseModel):
    """A preview of image `index`, made after a step."""

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
