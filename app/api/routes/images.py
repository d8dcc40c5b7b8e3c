"""OpenAI's way of asking for pictures: held until they are there."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.openai.asked import of_images
from app.api.openai.images import ImagesView, images_view
from app.api.openai.stream import pictures_told, timed_out, without_client_cancelled
from app.api.resolve import find_model, resolve
from app.api.schemas import ImageBody
from app.api.service import Here
from app.api.sse import EventStream
from app.api.views import completed_result, time_headers
from app.errors import Unavailable

router = APIRouter(tags=["images"])

#: A worker that was restarted is heard of again within this time.
NO_WORKER_RETRY_S = 5


@router.post("/v1/images/generations", response_model=ImagesView)
async def create_image(body: ImageBody, request: Request, service: Here) -> Response:
    """Pictures as base64 or by URL, in OpenAI's shape, at once or as a stream of events.

    Guidance: `negative_prompt`, `nag: {…}`, or flat `nag_scale` and so on.
    """
    asked = of_images(body, find_model(service.catalog, body.model, "image"))
    resolved = resolve(asked.body, service.catalog, written=asked.written, warnings=asked.warnings)
    if not await service.queue.workers():
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=NO_WORKER_RETRY_S)
    job, _ = await service.submit(resolved, body, request)
    # A caller who sent a key means to ask again for the same job.
    leaving = None if "idempotency-key" in request.headers else request
    if body.stream:
        return EventStream((pictures_told if leaving is None else without_client_cancelled)(job, service))
    job = await service.wait(job, service.settings.wait_max_s, cancel_without=leaving)
    if not job.status.terminal:
        raise timed_out(job)
    base_url = str(request.base_url).rstrip("/") if body.response_format == "url" else None
    view = await images_view(job, service, base_url)
    return JSONResponse(view.model_dump(mode="json"), headers=time_headers(completed_result(job)))
