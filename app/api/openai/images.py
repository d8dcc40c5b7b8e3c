"""OpenAI's responses with images, whole and as a stream of events."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from app.api.responses.result import BATCH_SIZE, OMITTED_IF_NONE, completed_result, echo
from app.api.service import Service
from app.artifacts.signed_urls import Links
from app.errors import Gone
from app.jobs import AppliedGuidance, Generation, Job, JobEvent, LoraUse, Timings

__all__ = ["CompletedEvent", "ImagesView", "PartialImageEvent", "completed_events", "images_view", "partial_event"]


class TokenDetails(BaseModel):
    """Zeros."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(BaseModel):
    """Tokens, of which none are counted here; `work` is what was done: pixels denoised, a step, twice with CFG."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens_details: TokenDetails = TokenDetails()
    work: int


class Image(BaseModel):
    """One image in OpenAI's shape, with its seed."""

    b64_json: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    url: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    seed: int


class Echo(BaseModel):
    """What was really used. `model` is the name that the request used; `alias_of` is there if that is an alias. A
    `negative_prompt` is the request's, or its alias's.
    """

    model: str
    alias_of: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    job: str
    seed: int
    negative_prompt: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
    nag: AppliedGuidance
    loras: tuple[LoraUse, ...]
    batch_size: Annotated[int, BATCH_SIZE]
    attempts: int
    worker: str | None
    timings: Timings
    warnings: tuple[str, ...]


class ImagesView(Echo):
    """OpenAI's ImagesResponse, with the job's echo. `created` is in Unix seconds."""

    created: int
    data: list[Image]
    output_format: str
    size: str
    background: Literal["opaque"] = "opaque"
    usage: Usage


class PartialImageEvent(BaseModel):
    """`image_generation.partial_image`, or `image_edit.partial_image`: a preview of image `index`, made after a step.

    `output_format` is this file's own, `size` that of the image to come. `partial_image_index` counts from 0.
    """

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    index: int
    partial_image_index: int
    step: int
    b64_json: str
    created_at: int
    output_format: str
    size: str
    quality: Literal["auto"] = "auto"
    background: Literal["opaque"] = "opaque"


class CompletedEvent(Echo):
    """`image_generation.completed`, or `image_edit.completed`: one image; `seed` is its own, `usage` that of all of
    them. In Unix seconds.
    """

    type: Literal["image_generation.completed", "image_edit.completed"]
    index: int
    b64_json: str
    created_at: int
    output_format: str
    size: str
    quality: Literal["auto"] = "auto"
    background: Literal["opaque"] = "opaque"
    usage: Usage


async def images_view(job: Job, service: Service, links: Links | None) -> ImagesView:
    """Returns a finished job's images: by `links`, or in the answer itself if that is None.

    Raises Gone, Conflict, and the job's own error.
    """
    result, asked = completed_result(job), job.request
    if links is None:
        written = [{"b64_json": data} for data in await _base64(job, service)]
    else:
        written = [{"url": links.to(artifact.name).url} for artifact in result.artifacts]
    return ImagesView(
        **_echo(job),
        created=int(job.completed_at or job.created_at),
        data=[Image(**fields, seed=made.seed) for fields, made in zip(written, result.artifacts, strict=True)],
        output_format=asked.output_format,
        size=_size(asked),
        usage=Usage(work=asked.work),
    )


def partial_event(preview: JobEvent, asked: Generation, number: int) -> PartialImageEvent:
    """Returns the preview as the `number`th one of its image."""
    return PartialImageEvent(
        type="image_generation.partial_image" if not asked.inputs else "image_edit.partial_image",
        index=preview.data["index"],
        partial_image_index=number,
        step=preview.data["step"],
        b64_json=preview.data["b64_json"],
        created_at=int(preview.at),
        output_format=preview.data["media_type"].removeprefix("image/"),
        size=_size(asked),
    )


async def completed_events(job: Job, service: Service) -> list[CompletedEvent]:
    """Returns an event for each image of a finished job. Raises what `images_view` raises."""
    result, asked = completed_result(job), job.request
    return [
        CompletedEvent(
            **_echo(job) | {"seed": made.seed},
            type="image_generation.completed" if not asked.inputs else "image_edit.completed",
            index=index,
            b64_json=data,
            created_at=int(job.completed_at or job.created_at),
            output_format=asked.output_format,
            size=_size(asked),
            usage=Usage(work=asked.work),
        )
        for index, (data, made) in enumerate(zip(await _base64(job, service), result.artifacts, strict=True))
    ]


async def _base64(job: Job, service: Service) -> list[str]:
    try:
        files = await asyncio.gather(*(service.artifacts.read(each.name) for each in completed_result(job).artifacts))
    except FileNotFoundError as exc:
        raise Gone(f"the result of job {job.id} is no longer kept") from exc
    return [base64.b64encode(data).decode() for data in files]


def _echo(job: Job) -> dict[str, Any]:
    asked = job.request
    alias_of = None if asked.alias is None else asked.model
    return {
        "model": asked.named_model, "alias_of": alias_of, "job": job.id,
        "negative_prompt": asked.used_negative_prompt, **echo(job),
    }  # fmt: skip


def _size(asked: Generation) -> str:
    return f"{asked.width}x{asked.height}"
