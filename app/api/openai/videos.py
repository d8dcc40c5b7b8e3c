"""OpenAI's VideoResource: a job that makes a video, as its SDKs read it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from app.api.responses.page import PageView
from app.api.responses.result import BATCH_SIZE, OMITTED_IF_NONE, echo
from app.jobs import AppliedGuidance, Job, JobError, JobStatus, LoraUse, Timings
from app.queue.queue import JobPage

__all__ = ["VideoDeletedView", "VideoView", "VideosView", "poll_after_ms", "video_view", "videos_view"]

#: Between two looks of a client that asks again and again.
POLL_MIN_MS, POLL_MS, POLL_MAX_MS = 250, 1000, 10_000
Status = Literal["queued", "in_progress", "completed", "failed"]
SHOWN: dict[JobStatus, Status] = {
    JobStatus.QUEUED: "queued",
    JobStatus.IN_PROGRESS: "in_progress",
    JobStatus.COMPLETED: "completed",
}
#: OpenAI's videos know no other end; the error's code tells these apart.
AS_FAILED = {
    JobStatus.CANCELLED: JobError("cancelled", "the job was cancelled"),
    JobStatus.EXPIRED: JobError("expired", "the job was not done by its deadline"),
}


class VideoView(BaseModel):
    """A video and what was really used for it. Times are Unix seconds; `seconds` is what its frames really last.
    `model` is the name that the request used; `alias_of` is there if that is an alias.
    """

    id: str
    object: Literal["video"] = "video"
    model: str
    alias_of: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    status: Status
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    size: str
    seconds: str
    remixed_from_video_id: str | None = None
    error: JobError | None
    seed: int
    num_frames: int
    fps: int
    negative_prompt: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    nag: AppliedGuidance | None
    loras: tuple[LoraUse, ...]
    batch_size: Annotated[int | None, BATCH_SIZE]
    attempts: int
    worker: str | None
    timings: Timings | None
    warnings: tuple[str, ...]


class VideosView(PageView[VideoView]):
    """OpenAI's list; the next page is the one `after` last_id."""


class VideoDeletedView(BaseModel):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


def videos_view(page: JobPage, retention_s: float) -> VideosView:
    return VideosView.of(page, lambda job: video_view(job, retention_s))


def video_view(job: Job, retention_s: float) -> VideoView:
    """Returns the job, which must be one of a video."""
    asked = job.request
    assert asked.num_frames is not None
    assert asked.fps is not None
    done = job.status == JobStatus.COMPLETED
    return VideoView(
        **echo(job),
        id=job.id,
        model=asked.named_model,
        alias_of=None if asked.alias is None else asked.model,
        status=SHOWN.get(job.status, "failed"),
        progress=100 if done else 100 * job.step // asked.steps,
        created_at=int(job.created_at),
        completed_at=int(job.completed_at) if done and job.completed_at else None,
        expires_at=int(job.completed_at + retention_s) if done and job.completed_at else None,
        prompt=asked.prompt,
        negative_prompt=asked.used_negative_prompt,
        size=f"{asked.width}x{asked.height}",
        seconds=f"{asked.num_frames / asked.fps:.4f}".rstrip("0").rstrip("."),
        error=AS_FAILED.get(job.status, job.error),
        remixed_from_video_id=asked.remix_of,
        num_frames=asked.num_frames,
        fps=asked.fps,
    )


def poll_after_ms(job: Job, now: float) -> int:
    """When to look again at a job that has not ended: after half of what its steps so far let expect. `now` is in Unix
    seconds.
    """
    if not job.step or job.started_at is None:
        return POLL_MS
    left_s = (now - job.started_at) / job.step * (job.request.steps - job.step)
    return max(POLL_MIN_MS, min(POLL_MAX_MS, round(left_s * 500)))
