"""OpenAI's way of asking for a video: accepted at once, asked after, fetched."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from app.api.inputs.preparation import prepare_inputs
from app.api.model_selection import find_model, input_faults
from app.api.openai.request_adapter import adapt_video
from app.api.openai.schemas import VideoBody
from app.api.openai.videos import VideoDeletedView, VideosView, VideoView, poll_after_ms, video_view, videos_view
from app.api.requests.fields import take_notes, warning_header
from app.api.requests.forms import FileRoute
from app.api.requests.uploads import INPUT_FIELDS, take_uploads
from app.api.responses.download import file_response
from app.api.responses.result import completed_result, time_headers
from app.api.service import Here, Service
from app.errors import Gone, InvalidParameter, NotFound, UnsupportedParameter, merge_errors
from app.jobs import InputRole, Job

router = APIRouter(tags=["videos"])
#: Their bodies can hold files.
files = APIRouter(tags=["videos"], route_class=FileRoute)


class ContentQuery(BaseModel):
    """Which file of a video."""

    variant: Annotated[Literal["video", "thumbnail", "spritesheet"], Field(description="spritesheet is refused")] = (
        "video"
    )


class ListQuery(BaseModel):
    """Which videos."""

    limit: Annotated[int, Field(ge=1, le=100, description="most videos in the answer")] = 20
    after: Annotated[str | None, Field(description="the id of a video: those behind it follow")] = None
    order: Annotated[Literal["asc", "desc"], Field(description="asc: oldest first")] = "desc"


@files.post("/v1/videos", response_model=VideoView)
async def create_video(body: VideoBody, request: Request, service: Here) -> Response:
    """Queue a video. Guidance: `negative_prompt`, `nag: {…}`, or flat `nag_scale` and so on."""
    uploads = take_uploads(request)
    notes = take_notes(request)
    job, inputs = await prepare_inputs(
        body, uploads, service, lambda model: adapt_video(body, model), "video", notes
    )  # fmt: skip
    del uploads
    job, _ = await service.submit(job, body, request, inputs)
    return _answer(job, service)


@files.post("/v1/videos/{video_id}/remix", response_model=VideoView)
async def remix_video(video_id: str, body: VideoBody, request: Request, service: Here) -> Response:
    """Queue a video that changes a finished one of the caller, as far as `strength` goes, by a model that takes videos.

    It is of the same model and length unless the request says otherwise.
    """
    job = await _find(video_id, service)
    result = completed_result(job)
    for name in INPUT_FIELDS:
        if getattr(body, name, None) is not None:
            raise InvalidParameter(f"{name}: a remix starts from video {video_id} alone; leave it out", param=name)
    notes = take_notes(request)
    if body.model is None and job.request.alias is not None:
        notes = replace(notes, alias=service.catalog.aliases.get(job.request.alias))
    fields: dict[str, Any] = {"model": body.model or job.request.model, "video": video_id}
    if body.num_frames is None and body.seconds is None:
        fields["num_frames"] = job.request.num_frames
    remix = body.model_copy(update=fields)
    faults = input_faults(find_model(service.catalog, remix.model, "video"), [InputRole.VIDEO], {"video": "model"})
    if faults:
        raise merge_errors(faults)
    try:
        uploads = {video_id: await service.artifacts.open_file(result.artifacts[0].name)}
    except FileNotFoundError as exc:
        raise Gone(f"the file of video {video_id} is no longer kept") from exc
    job, inputs = await prepare_inputs(
        remix, uploads, service, lambda model: adapt_video(remix, model), "video", notes
    )  # fmt: skip
    del uploads
    job = replace(job, request=replace(job.request, remix_of=video_id))
    queued, _ = await service.submit(job, body, request, inputs)
    return _answer(queued, service)


@router.get("/v1/videos")
async def list_videos(service: Here, query: Annotated[ListQuery, Query()]) -> VideosView:
    """Returns the caller's videos, newest first."""
    models = [each.id for each in service.catalog.models.values() if each.kind == "video"]
    page = await service.page(query.limit, after=query.after, models=models, oldest_first=query.order == "asc")
    return videos_view(page, service.settings.retention_s)


@router.get("/v1/videos/{video_id}", response_model=VideoView)
async def get_video(video_id: str, service: Here) -> Response:
    """Returns a video as it stands; `openai-poll-after-ms` says when to ask again."""
    return _answer(await _find(video_id, service), service)


@router.get("/v1/videos/{video_id}/content", response_class=FileResponse)
async def download_video(
    video_id: str, request: Request, service: Here, query: Annotated[ContentQuery, Query()]
) -> Response:
    """Returns the MP4, or a JPEG of its middle frame, or a `Range` of either.

    409 while there is none, 410 once it is gone, the job's own error if it failed.
    """
    if query.variant == "spritesheet":
        raise UnsupportedParameter(f"variant: no {query.variant} is made", param="variant")
    result = completed_result(await _find(video_id, service))
    made = result.artifacts[0]
    name = made.name if query.variant == "video" else made.thumbnail
    if name is None:
        raise Gone(f"video {video_id} has no thumbnail")
    return await file_response(request, service.artifacts, name, time_headers(result))


@router.delete("/v1/videos/{video_id}")
async def delete_video(video_id: str, service: Here) -> VideoDeletedView:
    """Remove a video and its files at once, whatever it is at: one that has not ended is cancelled first."""
    await _find(video_id, service)
    await service.delete(video_id)
    return VideoDeletedView(id=video_id)


async def _find(video_id: str, service: Service) -> Job:
    job = await service.find(video_id)
    if job.request.num_frames is None:
        raise NotFound(f"no video {video_id!r}; the job of this id generates images")
    return job


def _answer(job: Job, service: Service) -> Response:
    headers = {} if job.status.is_terminal else {"openai-poll-after-ms": str(poll_after_ms(job, time.time()))}
    if job.result is not None:
        headers |= time_headers(job.result)
    view = video_view(job, service.settings.retention_s)
    return JSONResponse(view.model_dump(mode="json"), headers=headers | warning_header(view.warnings))
