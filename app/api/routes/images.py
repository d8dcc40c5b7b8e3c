"""OpenAI's way of asking for pictures: held until they are there."""

from __future__ import annotations

import asyncio
import base64

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.openai import from_openai
from app.api.resolve import find_model, resolve
from app.api.schemas import ImageBody
from app.api.service import Here
from app.api.views import Image, ImagesView, all_warnings, completed_result, time_headers
from app.errors import Expired, InvalidParameter, Unavailable

router = APIRouter(tags=["images"])

#: A worker that was restarted is heard of again within this time.
NO_WORKER_RETRY_S = 5


@router.post("/v1/images/generations", response_model=ImagesView)
async def generate_images(body: ImageBody, request: Request, service: Here) -> Response:
    """Pictures as base64, in OpenAI's shape. Guidance: `negative_prompt`, `nag: {…}`, or flat `nag_scale` and so on."""
    common, written, warnings = from_openai(body)
    model = find_model(service.catalog, body.model)
    if model.kind != "image":
        message = f"model: {model.id} makes videos; ask for one by POST /v1/jobs"
        raise InvalidParameter(message, param="model", code="not_an_image_model")
    resolved = resolve(common, service.catalog, written=written, warnings=warnings)
    if not await service.queue.workers():
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=NO_WORKER_RETRY_S)
    job, _ = await service.submit(resolved, body, request)
    # A caller who sent a key means to ask again for the same job.
    leaving = None if "idempotency-key" in request.headers else request
    job = await service.wait(job, service.settings.wait_max_s, cancel_without=leaving)
    if not job.status.terminal:
        raise Unavailable(
            f"not done within the time a request is held; the job goes on as /v1/jobs/{job.id}", code="timeout"
        )
    result, asked = completed_result(job), job.request
    try:
        pictures = await asyncio.gather(*(service.artifacts.read(each.name) for each in result.artifacts))
    except FileNotFoundError as exc:
        raise Expired(f"the result of job {job.id} is no longer kept") from exc
    view = ImagesView(
        created=int(job.completed_at or job.created_at),
        data=[
            Image(b64_json=base64.b64encode(data).decode(), seed=each.seed)
            for data, each in zip(pictures, result.artifacts, strict=True)
        ],
        output_format=asked.output_format,
        size=f"{asked.width}x{asked.height}",
        model=asked.model,
        job=job.id,
        seed=asked.seed,
        nag=result.nag,
        batch_size=result.batch_size,
        attempts=job.attempts,
        worker=job.worker,
        timings=result.timings,
        warnings=all_warnings(job),
    )
    return JSONResponse(view.model_dump(mode="json"), headers=time_headers(result))
