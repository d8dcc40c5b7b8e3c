"""A request and its answer for each operation that one learns by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from app.api.openai.videos import video_view
from app.api.responses.job import job_view
from app.artifacts.signed_urls import PATH, Link, Links
from app.jobs import AppliedGuidance, Artifact, Generation, Guidance, Job, JobStatus, Result, Timings

__all__ = ["REQUESTS", "answers"]

#: By operationId, under the name of what each shows.
REQUESTS: dict[str, dict[str, dict[str, Any]]] = {
    "create_job": {
        "A negative prompt": {"prompt": "a shape", "negative_prompt": "a red shape", "seed": 7},
        "NAG's numbers": {
            "model": "shapes-flux",
            "prompt": "a shape",
            "nag": {"negative_prompt": "a red shape", "scale": 7.0, "tau": 2.5, "alpha": 0.25, "end": 0.5},
            "n": 2,
            "output_format": "webp",
            "output_compression": 90,
        },
    },
    "create_image": {
        "A negative prompt": {"prompt": "a shape", "negative_prompt": "a red shape", "n": 2, "size": "64x64"},
        "Flat, by a URL": {
            "prompt": "a shape",
            "nag_negative_prompt": "red",
            "nag_scale": 7.0,
            "response_format": "url",
        },
        "A stream": {"prompt": "a shape", "stream": True},
    },
    "create_video": {
        "A negative prompt": {
            "prompt": "a cat on the street",
            "negative_prompt": "blurred, low quality",
            "seconds": "5",
            "size": "832x480",
        },
    },
}

_IMAGE = Generation(
    model="shapes-flux",
    prompt="a shape",
    negative_prompt="a red shape",
    seed=7,
    num_inference_steps=4,
    guidance_scale=1.0,
    width=64,
    height=64,
    n=1,
    output_format="png",
    output_compression=100,
    nag=Guidance(5.0, 2.5, 0.25, 1.0, "a red shape"),
)
_VIDEO = replace(
    _IMAGE,
    model="wan21-lightx2v",
    prompt="a cat on the street",
    negative_prompt="blurred, low quality",
    width=832,
    height=480,
    output_format="mp4",
    nag=Guidance(5.0, 2.5, 0.25, 1.0, "blurred, low quality"),
    num_frames=81,
    fps=16,
)


class _ExampleLinks(Links):
    """Links of no time and no secret."""

    def __init__(self) -> None:
        super().__init__((), 0)

    def to(self, name: str) -> Link:
        return Link(f"{PATH}{name}?expires=1790003600&signature=5Yc0", 1_790_003_600)


def answers() -> dict[str, tuple[str, BaseModel]]:
    """Returns by operationId the status of an answer and an example of it."""
    queued, done = _job(_IMAGE, None, "image/png"), _job(_IMAGE, JobStatus.COMPLETED, "image/png")
    making, made = _job(_VIDEO, None, "video/mp4"), _job(_VIDEO, JobStatus.COMPLETED, "video/mp4")
    return {
        "create_job": ("202", job_view(queued, _ExampleLinks())),
        "get_job": ("200", job_view(done, _ExampleLinks())),
        "create_video": ("200", video_view(making, 86_400)),
        "get_video": ("200", video_view(made, 86_400)),
    }


def _job(request: Generation, status: JobStatus | None, media_type: str) -> Job:
    ended = status is not None
    artifact = Artifact(f"job_0f3c-0-a1b2c3d4.{request.output_format}", media_type, 6431, request.seed)
    return Job(
        id="job_0f3c",
        request=request,
        status=status or JobStatus.QUEUED,
        created_at=1_790_000_000.0,
        started_at=1_790_000_001.0 if ended else None,
        completed_at=1_790_000_002.5 if ended else None,
        deadline_at=1_790_086_400.0,
        attempts=1 if ended else 0,
        worker="worker-1" if ended else None,
        step=request.steps if ended else 0,
        result=Result(
            artifacts=(artifact,),
            nag=AppliedGuidance(True, None, 5.0, 2.5, 0.25, 1.0, 0.0),
            batch_size=4,
            timings=Timings(queue_ms=1000.0, encode_ms=12.5, denoise_ms=1400.0, decode_ms=40.0, total_ms=2500.0),
        )
        if ended
        else None,
    )
