"""The routes of AUTOMATIC1111's web API, and those that its clients ask for before they send a request."""

from __future__ import annotations

import asyncio
import binascii
import json
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.inputs.images import UploadedImage
from app.api.inputs.preparation import prepare_images, prepare_inputs
from app.api.inputs.sources import InputSource, load_input
from app.api.model_selection import find_model
from app.api.openai.request_adapter import AdaptedRequest
from app.api.openai.stream import timed_out
from app.api.requests.fields import warning_header
from app.api.requests.forms import FileRoute
from app.api.requests.uploads import add_upload, decode_data_url, take_uploads
from app.api.requests.validation import ValidationRoute
from app.api.responses.result import completed_result, time_headers
from app.api.routes.images import submit_held
from app.api.sdapi import PATH, PING
from app.api.sdapi.infotext import parse_infotext
from app.api.sdapi.masks import transparent_mask
from app.api.sdapi.metadata import PARAMETERS, read_texts
from app.api.sdapi.schemas import Img2ImgBody, OptionsBody, PngInfoBody, SdapiBody, Txt2ImgBody
from app.api.sdapi.translate import Translation, chosen_model, translate, unknown_options
from app.api.sdapi.views import (
    SdapiChangedView,
    SdapiImagesView,
    SdapiLoraView,
    SdapiModelView,
    SdapiOptionsView,
    SdapiPngInfoView,
    SdapiProgressView,
    SdapiSamplerView,
    SdapiSchedulerView,
    SdapiUpscalerView,
    images_view,
    lora_view,
    model_view,
    progress_view,
)
from app.api.service import Here, Service
from app.catalog import Model, RegisteredLora
from app.errors import InvalidParameter, NotFound
from app.jobs import EventType, InputFiles, InputRole, Job, JobStatus

__all__ = ["WITH_FILES", "files", "router"]

TXT2IMG, IMG2IMG, PNG_INFO = f"{PATH}/txt2img", f"{PATH}/img2img", f"{PATH}/png-info"
#: Paths whose bodies hold files.
WITH_FILES = (IMG2IMG, PNG_INFO)
#: Fields that hold them.
FILE_FIELDS = ("init_images", "mask", "image")
#: Answers to what clients look for before they send a request, by the name in the path. There is none of it here.
NOTHING: dict[str, Any] = {
    "cmd-flags": {},
    "embeddings": {"loaded": {}, "skipped": {}},
    "face-restorers": [],
    "hypernetworks": [],
    "latent-upscale-modes": [],
    "memory": {"ram": {"error": "not measured here"}, "cuda": {"error": "not measured here"}},
    "prompt-styles": [],
    "realesrgan-models": [],
    "script-info": [],
    "scripts": {"txt2img": [], "img2img": []},
    "sd-modules": [],
    "sd-vae": [],
}
#: The lists that these routes would refresh are always up to date.
REFRESHES = ("refresh-checkpoints", "refresh-loras", "refresh-vae")


def decode_file(text: str, path: str) -> bytes | None:
    """Returns the bytes of base64 or of a data URL; None for a text that names a file. Raises InvalidParameter."""
    if text[:5].lower() == "data:":
        return decode_data_url(text, path)
    if not text.strip() or text.startswith(("file-", "http://", "https://")):
        return None
    try:
        return binascii.a2b_base64("".join(text.split()).encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise InvalidParameter(f"{path}: must be a file as base64, or as a data URL", param=path) from None


def _replace_files(body: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Takes the files out of a JSON body; returns the rest, and the files. What is no JSON object stays as it is."""
    uploads: dict[str, bytes] = {}
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body, uploads
    if not isinstance(fields, dict):
        return body, uploads
    for name in FILE_FIELDS:
        value = fields.get(name)
        if isinstance(value, str):
            fields[name] = _replace_file(value, name, uploads)
        elif isinstance(value, list):
            fields[name] = [_replace_file(part, f"{name}.{index}", uploads) for index, part in enumerate(value)]
    return json.dumps(fields).encode(), uploads


def _replace_file(value: Any, path: str, uploads: dict[str, bytes]) -> Any:
    data = decode_file(value, path) if isinstance(value, str) else None
    return value if data is None else add_upload(uploads, data)


class Base64Route(FileRoute):
    """A route whose JSON body holds files as base64 or as data URLs."""

    replace_files = staticmethod(_replace_files)


router = APIRouter(tags=["sdapi"], route_class=ValidationRoute)
#: Their bodies can hold files.
files = APIRouter(tags=["sdapi"], route_class=Base64Route)


class ProgressQuery(BaseModel):
    """What to leave out."""

    skip_current_image: Annotated[bool, Field(description="true: no preview")] = False


@router.post(TXT2IMG, response_model=SdapiImagesView)
async def txt2img(body: Txt2ImgBody, request: Request, service: Here) -> Response:
    """Generates images from a prompt. The request is held until they are finished."""
    translation = await _translate(body, service)
    job, inputs = await prepare_inputs(translation.body, {}, service, translation.adapt, "image")
    return await _answer(job, inputs, translation, request, service)


@files.post(IMG2IMG, response_model=SdapiImagesView)
async def img2img(body: Img2ImgBody, request: Request, service: Here) -> Response:
    """Generates images from others, changed by as much as `denoising_strength` says, or where the mask is white. GET
    /v1/models says in `inputs` which model does what.
    """
    uploads = take_uploads(request)
    translation = await _translate(body, service)
    images = [
        InputSource(InputRole.IMAGE, f"init_images.{index}", text) for index, text in enumerate(body.init_images or ())
    ]
    masks = [InputSource(InputRole.MASK, "mask", body.mask)] if body.mask else []
    if not images:
        raise InvalidParameter("init_images: must have an image", param="init_images")
    sources = [*images, *masks]
    loaded: dict[str, bytes | BinaryIO] = {}
    for source in sources:
        loaded[source.field] = await load_input(source, uploads, service)
    del uploads
    size, said = await asyncio.get_running_loop().run_in_executor(
        service.decoder, _read_images, loaded, bool(body.inpainting_mask_invert), service
    )
    translation = replace(translation, warnings=(*translation.warnings, *said))

    def adapt(model: Model, first: InputRole) -> AdaptedRequest:
        return translation.adapt(model, first, size)

    named = [replace(source, text=source.field) for source in sources]
    job, inputs = await prepare_images(translation.body, named, loaded, service, adapt)
    del loaded
    return await _answer(job, inputs, translation, request, service)


@router.get(f"{PATH}/progress")
async def get_progress(service: Here, query: Annotated[ProgressQuery, Query()]) -> SdapiProgressView:
    """Returns the progress of the caller's oldest running job of these routes."""
    jobs = await _running_jobs(service)
    preview = None
    if jobs and jobs[0].request.previews and not query.skip_current_image:
        async with service.queue.follow(jobs[0].id) as feed:
            events = [event for event in await feed.next(0) if event.type is EventType.PREVIEW]
        preview = str(events[-1].data["b64_json"]) if events else None
    return progress_view(jobs, preview)


@router.post(f"{PATH}/interrupt")
async def interrupt(service: Here) -> dict[str, Any]:
    """Cancel the caller's jobs that were asked for by these routes and have not ended."""
    for job in await _running_jobs(service):
        with suppress(NotFound):
            await service.cancel(job.id)
    return {}


@router.get(f"{PATH}/options")
async def get_options(service: Here) -> SdapiOptionsView:
    """Returns the settings that clients look for: the caller's model, and fixed ones."""
    return await _options(service)


@router.post(f"{PATH}/options")
async def set_options(body: OptionsBody, service: Here) -> SdapiChangedView | None:
    """Choose the model of the caller's later requests. Null, or `warnings` that name what cannot be set."""
    name = body.sd_model_checkpoint
    if name is not None:
        model = find_model(service.catalog, name.strip() or None, "image")
        await service.queue.sdapi.choose(service.tenant, model.id if name.strip() else "")
    warnings = unknown_options(body.model_extra or {}, (await _options(service)).model_dump())
    return SdapiChangedView(warnings=warnings) if warnings else None


@router.get(f"{PATH}/sd-models")
async def list_checkpoints(service: Here) -> list[SdapiModelView]:
    """Returns every model that makes images."""
    return [model_view(model) for model in service.catalog.models.values() if model.kind == "image"]


@router.get(f"{PATH}/samplers")
async def list_samplers() -> list[SdapiSamplerView]:
    """Returns the one sampler: each model's own scheduler."""
    return [SdapiSamplerView()]


@router.get(f"{PATH}/schedulers")
async def list_schedulers() -> list[SdapiSchedulerView]:
    """Returns the one scheduler: each model's own."""
    return [SdapiSchedulerView()]


@router.get(f"{PATH}/upscalers")
async def list_upscalers() -> list[SdapiUpscalerView]:
    """Returns the one upscaler, which is none."""
    return [SdapiUpscalerView()]


@router.get(f"{PATH}/loras")
async def list_prompt_loras(service: Here) -> list[SdapiLoraView]:
    """Returns the LoRAs that the caller may name in a prompt."""
    loras: dict[str, RegisteredLora] = {**service.catalog.loras, **await service.uploaded_loras()}
    by_id = {lora.id: lora for lora in loras.values()}
    return [lora_view(by_id[name]) for name in sorted(by_id)]


@files.post(PNG_INFO)
async def get_png_info(body: PngInfoBody, request: Request, service: Here) -> SdapiPngInfoView:
    """Returns what an image file says about its making."""
    file = await load_input(InputSource(InputRole.IMAGE, "image", body.image), take_uploads(request), service)
    data = file.read(service.settings.input_max_bytes)
    texts = await asyncio.get_running_loop().run_in_executor(service.decoder, read_texts, data)
    info = texts.pop(PARAMETERS, "")
    return SdapiPngInfoView(info=info, items=texts, parameters=parse_infotext(info) if info else {})


@router.get(PING)
async def ping() -> dict[str, Any]:
    """Answers that the server runs."""
    return {}


def _add(method: str, name: str, answer: Any) -> None:
    """Adds a route whose answer is always the same; it is too plain for openapi.json."""

    async def fixed() -> Any:
        return answer

    router.add_api_route(f"{PATH}/{name}", fixed, methods=[method], include_in_schema=False)


for _name, _nothing in NOTHING.items():
    _add("GET", _name, _nothing)
for _name in REFRESHES:
    _add("POST", _name, None)


async def _translate(body: SdapiBody, service: Service) -> Translation:
    named = chosen_model(body)
    if named is not None:
        return translate(body, named)
    model = await service.queue.sdapi.model(service.tenant)
    if model is None or model in service.catalog.models:
        return translate(body, model)
    translation = translate(body, None)
    gone = f"override_settings: the model {model}, chosen by {PATH}/options, is no longer served; the default was used"
    return replace(translation, warnings=(gone, *translation.warnings))


def _read_images(
    loaded: dict[str, bytes | BinaryIO], is_inverted: bool, service: Service
) -> tuple[tuple[int, int], list[str]]:
    """Returns the size of the first image, and warnings; puts in the mask's place one as this service reads it."""
    settings = service.settings
    limits = {"max_px": settings.input_max_px, "max_bytes": settings.input_max_bytes}

    def opened(name: str) -> UploadedImage:
        file = loaded[name]
        assert not isinstance(file, bytes)
        return UploadedImage(name, file.read(settings.input_max_bytes + 1), **limits)

    size = opened("init_images.0").size
    if "mask" not in loaded:
        return size, []
    loaded["mask"], warnings = transparent_mask(opened("mask"), size, is_inverted=is_inverted)
    return size, warnings


async def _answer(
    job: Job, inputs: InputFiles, translation: Translation, request: Request, service: Service
) -> Response:
    job = await submit_held(job, translation.body, request, service, inputs)
    del inputs  # the job may be waited for for minutes
    listed = service.queue.sdapi
    await listed.add(service.tenant, job.id)
    # A caller who sent a key means to ask again for the same job.
    leaving = None if "idempotency-key" in request.headers else request
    job = await service.wait(job, service.settings.wait_max_s, cancel_without=leaving)
    if not job.status.is_terminal:
        raise timed_out(job)
    await listed.drop(service.tenant, job.id)
    view = await images_view(job, translation.asked, service)
    headers = time_headers(completed_result(job)) | warning_header(job.warnings)
    return JSONResponse(view.model_dump(mode="json"), headers=headers)


async def _running_jobs(service: Service) -> list[Job]:
    """Returns the caller's listed jobs that have not ended, those at work before those that wait."""
    ids = await service.queue.sdapi.jobs(service.tenant)
    jobs = await asyncio.gather(*(service.queue.get(job_id) for job_id in ids))
    running = [job for job in jobs if job is not None and not job.status.is_terminal]
    return sorted(running, key=lambda job: job.status is not JobStatus.IN_PROGRESS)


async def _options(service: Service) -> SdapiOptionsView:
    model = await service.queue.sdapi.model(service.tenant)
    if model not in service.catalog.models:
        model = find_model(service.catalog, None, "image").id
    return SdapiOptionsView(sd_model_checkpoint=model)
