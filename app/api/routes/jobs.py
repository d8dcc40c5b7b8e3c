"""Native jobs: accept, look, follow, fetch, cancel, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field

from app.api.inputs.preparation import prepare_inputs
from app.api.middleware.public_address import public_address
from app.api.openai.request_adapter import AdaptedRequest
from app.api.requests.fields import take_notes, warning_header
from app.api.requests.forms import FileRoute
from app.api.requests.generation import JobBody
from app.api.requests.uploads import take_uploads
from app.api.responses.download import file_response
from app.api.responses.job import DeletedView, JobsView, JobView, job_view, jobs_view
from app.api.responses.result import completed_result, time_headers
from app.api.responses.sse import EventStream, event_id, told
from app.api.service import Here, Service, wait_asked_s
from app.errors import InvalidParameter
from app.jobs import Job, JobStatus

router = APIRouter(tags=["jobs"])
#: Their bodies can hold files.
files = APIRouter(tags=["jobs"], route_class=FileRoute)

PreferHeader = Annotated[str | None, Header(description="wait=N holds the answer for up to N seconds")]
KeyHeader = Annotated[str | None, Header(description="the same key and body again: the same job, not another")]

LastEventHeader = Annotated[str | None, Header(description="the id of the last event received: those behind it follow")]


class ResultQuery(BaseModel):
    """The number of the image or video."""

    index: Annotated[int, Field(ge=0, description="0 to n - 1")] = 0


class ListQuery(BaseModel):
    """Which jobs."""

    status: JobStatus | None = None
    model: str | None = None
    limit: Annotated[int, Field(ge=1, le=100, description="most jobs in the answer")] = 20
    after: Annotated[str | None, Field(description="the id of a job: those that came before it follow")] = None


@files.post("/v1/jobs", status_code=202, response_model=JobView, responses={200: {"model": JobView}})
async def create_job(
    body: JobBody, request: Request, service: Here, prefer: PreferHeader = None, idempotency_key: KeyHeader = None
) -> Response:
    """Queue a generation: 202 and the job. 200 when it is done within `Prefer: wait=N`, or was asked for before."""
    del prefer, idempotency_key  # declared for the documentation; read where their grammar is known
    wait_s = wait_asked_s(request, service.settings.wait_max_s)
    uploads = take_uploads(request)
    job, inputs = await prepare_inputs(
        body, uploads, service, lambda _: AdaptedRequest(body, {}, ()), notes=take_notes(request)
    )  # fmt: skip
    del uploads
    job, created = await service.submit(job, body, request, inputs, held=wait_s is not None)
    del inputs
    if wait_s is not None:
        job = await service.wait(job, wait_s, keep_without=request)
    status = 200 if job.status.is_terminal or not created else 202
    headers = {"location": f"{public_address(request).prefix}/v1/jobs/{job.id}"}
    if wait_s is not None:
        headers["preference-applied"] = f"wait={wait_s:g}"
    return _answer(service, job, status, headers)


@router.get("/v1/jobs")
async def list_jobs(service: Here, query: Annotated[ListQuery, Query()]) -> JobsView:
    """Returns the caller's jobs, newest first."""
    models = None if query.model is None else [service.catalog.own_id(query.model)]
    page = await service.page(query.limit, after=query.after, status=query.status, models=models)
    return jobs_view(page, service.links)


@router.get("/v1/jobs/{job_id}", response_model=JobView)
async def get_job(job_id: str, service: Here) -> Response:
    """Returns a job as it stands; once completed, with the echo of what was really used."""
    return _answer(service, await service.find(job_id), 200, {})


@router.get(
    "/v1/jobs/{job_id}/events",
    status_code=200,
    response_class=EventStream,
    responses={204: {"description": "All was told."}},
)
async def get_events(job_id: str, service: Here, last_event_id: LastEventHeader = None) -> Response:
    """Streams what happens to a job as server-sent events: `queued`, `started`, `progress`, `preview`, and at the end
    `completed`, `failed`, `cancelled` or `expired`, which has the job. A job that was returned to the queue is `queued`
    and `started` again.

    Answers 204, on which a client does not connect again, if the client has received the last event before.
    """
    after = event_id(last_event_id)
    job = await service.find(job_id)
    if after is not None and job.status.is_terminal:
        async with service.queue.follow(job_id, after) as feed:
            if not await feed.next(0):
                return Response(status_code=204)
    return EventStream(told(service, job, after))


@router.get("/v1/jobs/{job_id}/result", response_class=FileResponse)
async def get_result(job_id: str, request: Request, service: Here, query: Annotated[ResultQuery, Query()]) -> Response:
    """Returns the bytes of one image or video, or a `Range` of them.

    409 while there is none, 410 once it is gone, the job's own error if it failed.
    """
    result = completed_result(await service.find(job_id))
    if query.index >= len(result.artifacts):
        raise InvalidParameter(f"index: the job has {len(result.artifacts)} outputs, counted from 0", param="index")
    return await file_response(request, service.artifacts, result.artifacts[query.index].name, time_headers(result))


@router.post("/v1/jobs/{job_id}/cancel", response_model=JobView)
async def cancel_job(job_id: str, service: Here) -> Response:
    """End a job, waiting or at work: the work is left between two steps. A job that has ended stays as it is."""
    return _answer(service, await service.cancel(job_id), 200, {})


@router.delete("/v1/jobs/{job_id}")
async def delete_job(job_id: str, service: Here) -> DeletedView:
    """Remove a job and its files at once, whatever it is at: one that has not ended is cancelled first.

    Asked again, 404: it is gone either way. Its Idempotency-Key is free again.
    """
    await service.delete(job_id)
    return DeletedView(id=job_id)


def _answer(service: Service, job: Job, status: int, headers: dict[str, str]) -> Response:
    if job.result is not None:
        headers |= time_headers(job.result)
    view = job_view(job, service.links)
    return JSONResponse(view.model_dump(mode="json"), status, headers | warning_header(view.warnings))
