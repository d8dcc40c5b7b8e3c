"""OpenAI's way of asking for a video: accepted at once, asked after, fetched."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.files import stored_file
from app.api.forms import FormRoute
from app.api.openai.asked import of_a_video
from app.api.openai.videos import VideoDeletedView, VideosView, VideoView, poll_after_ms, video_view, videos_view
from app.api.resolve import find_model, resolve
from app.api.schemas import VideoBody
from app.api.service import Here, Service
from app.api.views.result import completed_result, time_headers
from app.errors import Expired, NotFound, UnsupportedParameter
from app.jobs import Job

router = APIRouter(tags=["videos"])
#: The SDKs send this one as a form.
forms = APIRouter(tags=["videos"], route_class=FormRoute)


class ContentQuery(BaseModel):
    """Which file of a video."""

    model_config = ConfigDict(extra="forbid")

    variant: Annotated[Literal["video", "thumbnail", "spritesheet"], Field(description="spritesheet is refused")] = (
        "video"
    )


class ListQuery(BaseModel):
    """Which videos."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100, description="most videos in the answer")] = 20
    after: Annotated[str | None, Field(description="the id of a video: those behind it follow")] = None
    order: Annotated[Literal["asc", "desc"], Field(description="asc: oldest first")] = "desc"


@forms.post("/v1/videos", response_model=VideoView)
async def create_video(body: VideoBody, request: Request, service: Here) -> Response:
    """Queue a video. Guidance: `negative_prompt`, `nag: {…}`, or flat `nag_scale` and so on."""
    asked = of_a_video(body, find_model(service.catalog, body.model, "video"))
    resolved = resolve(
        asked.body, service.catalog, written=asked.written, warnings=asked.warnings,
        uploaded=await service.loras_for(body),
    )  # fmt: skip
    job, _ = await service.submit(resolved, body, request)
    return _answer(job, service)


@router.get("/v1/videos")
async def list_videos(service: Here, query: Annotated[ListQuery, Query()]) -> VideosView:
    """The caller's videos, newest first."""
    models = [each.id for each in service.catalog.models.values() if each.kind == "video"]
    page = await service.page(query.limit, after=query.after, models=models, oldest_first=query.order == "asc")
    return videos_view(page, service.settings.retention_s)


@router.get("/v1/videos/{video_id}", response_model=VideoView)
async def get_video(video_id: str, service: Here) -> Response:
    """A video as it stands; `openai-poll-after-ms` says when to ask again."""
    return _answer(await _find(video_id, service), service)


@router.get("/v1/videos/{video_id}/content", response_class=FileResponse)
async def download_video(
    video_id: str, request: Request, service: Here, query: Annotated[ContentQuery, Query()]
) -> Response:
    """The MP4, or a JPEG of its middle frame, or a `Range` of either.

    409 while there is none, 410 once it is gone, the job's own error if it failed.
    """
    if query.variant == "spritesheet":
        raise UnsupportedParameter(f"variant: no {query.variant} is made", param="variant")
    result = completed_result(await _find(video_id, service))
    made = result.artifacts[0]
    name = made.name if query.variant == "video" else made.thumbnail
    if name is None:
        raise Expired(f"video {video_id} has no thumbnail")
    return await stored_file(request, service.artifacts, name, time_headers(result))


@router.delete("/v1/videos/{video_id}")
async def delete_video(video_id: str, service: Here) -> VideoDeletedView:
    """Remove a video and its files at once, whatever it is at: one that has not ended is cancelled first."""
    await _find(video_id, service)
    await service.delete(video_id)
    return VideoDeletedView(id=video_id)


async def _find(video_id: str, service: Service) -> Job:
    job = await service.find(video_id)
    if job.request.num_frames is None:
        raise NotFound(f"no video {video_id!r}; there is a job of this name, which makes pictures")
    return job


def _answer(job: Job, service: Service) -> Response:
    headers = {} if job.status.terminal else {"openai-poll-after-ms": str(poll_after_ms(job, time.time()))}
    if job.result is not None:
        headers |= time_headers(job.result)
    return JSONResponse(video_view(job, service.settings.retention_s).model_dump(mode="json"), headers=headers)
