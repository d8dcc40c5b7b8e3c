"""OpenAI's routes for images: a request is held until its images are there."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.inputs.preparation import prepare_edit, prepare_inputs
from app.api.middleware.public_address import public_address
from app.api.openai.images import ImagesView, images_view
from app.api.openai.request_adapter import adapt_images
from app.api.openai.schemas import EditBody, ImageBody
from app.api.openai.stream import image_sse_events, timed_out, without_client_cancelled
from app.api.requests.fields import RequestNotes, take_notes, warning_header
from app.api.requests.forms import FileRoute
from app.api.requests.generation import GenerationBody
from app.api.requests.uploads import take_uploads
from app.api.responses.result import completed_result, time_headers
from app.api.responses.sse import EventStream
from app.api.service import Here, Service
from app.errors import Unavailable
from app.jobs import InputFiles, Job

router = APIRouter(tags=["images"], route_class=FileRoute)

EDITS = "/v1/images/edits"

#: A worker that was restarted is heard of again within this time.
NO_WORKER_RETRY_S = 5


@router.post("/v1/images/generations", response_model=ImagesView)
async def create_image(body: ImageBody, request: Request, service: Here) -> Response:
    """Generates images, returned as base64 or by URL in OpenAI's form, at once or as a stream of events.

    Guidance: `negative_prompt`, `nag: {…}`, or flat `nag_scale` and so on.
    """
    uploads = take_uploads(request)
    notes = take_notes(request)
    job, inputs = await prepare_inputs(
        body, uploads, service, lambda _: adapt_images(body), "image", notes
    )  # fmt: skip
    del uploads
    job = await submit_held(job, body, request, service, inputs)
    del inputs  # the job may be waited for for minutes
    return await _answered(job, body, request, service, notes)


@router.post(EDITS, response_model=ImagesView)
async def edit_image(body: EditBody, request: Request, service: Here) -> Response:
    """Generates images from others: changed as the prompt says, or by as much as `strength` says, or regenerated where
    the mask is transparent. GET /v1/models says in `inputs` which model does what.

    Answers and guidance as of /v1/images/generations.
    """
    notes = take_notes(request)
    job, inputs = await prepare_edit(body, take_uploads(request), service, notes)
    job = await submit_held(job, body, request, service, inputs)
    del inputs  # the job may be waited for for minutes
    return await _answered(job, body, request, service, notes)


def _answers_with_url(body: ImageBody, notes: RequestNotes, service: Service) -> bool:
    """Whether the images are answered as URLs: as the request says, else its alias, else the service's settings."""
    by_alias = None if notes.alias is None else notes.alias.response_format
    return (body.response_format or by_alias or service.settings.response_format) == "url"


async def submit_held(job: Job, body: GenerationBody, request: Request, service: Service, inputs: InputFiles) -> Job:
    """Queues a job that its client waits for. Raises Unavailable if no worker runs, and as `Service.submit` does."""
    if not await service.queue.registry.workers():
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=NO_WORKER_RETRY_S)
    queued, _ = await service.submit(job, body, request, inputs, held=True)
    return queued


async def _answered(job: Job, body: ImageBody, request: Request, service: Service, notes: RequestNotes) -> Response:
    # A caller who sent a key means to ask again for the same job.
    leaving = None if "idempotency-key" in request.headers else request
    if body.stream:
        told = (image_sse_events if leaving is None else without_client_cancelled)(job, service)
        return EventStream(told, headers=warning_header(job.warnings))
    job = await service.wait(job, service.settings.wait_max_s, cancel_without=leaving)
    if not job.status.is_terminal:
        raise timed_out(job)
    is_url = _answers_with_url(body, notes, service)
    links = service.links.below(public_address(request).url) if is_url else None
    view = await images_view(job, service, links)
    headers = time_headers(completed_result(job)) | warning_header(view.warnings)
    return JSONResponse(view.model_dump(mode="json"), headers=headers)
