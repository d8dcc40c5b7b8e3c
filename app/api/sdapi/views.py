"""The shapes of answers, with the names of AUTOMATIC1111's API."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from app.api.responses.result import completed_result, echo
from app.api.sdapi.infotext import SAMPLER, infotext
from app.api.sdapi.metadata import with_parameters
from app.api.sdapi.schemas import SdapiBody
from app.api.service import Service
from app.catalog import Model, RegisteredLora
from app.errors import Gone
from app.jobs import AppliedGuidance, Job, JobStatus, Timings

__all__ = [
    "SdapiChangedView", "SdapiImagesView", "SdapiLoraView", "SdapiModelView", "SdapiOptionsView",
    "SdapiPngInfoView", "SdapiProgressView", "SdapiSamplerView", "SdapiSchedulerView", "SdapiUpscalerView",
    "images_view", "lora_view", "model_view", "progress_view",
]  # fmt: skip

VERSION = f"nag-server {version('nag-server')}"
#: Of a request, not repeated in its answer: files, and what others have made up.
NOT_REPEATED = {"init_images", "mask", "alwayson_scripts", "override_settings", "styles"}


class InfoView(BaseModel):
    """The text `info` of an answer, as JSON: the web UI's names, and below them what only this service knows."""

    prompt: str
    all_prompts: list[str]
    negative_prompt: str
    all_negative_prompts: list[str]
    seed: int
    all_seeds: list[int]
    subseed: int
    all_subseeds: list[int]
    subseed_strength: float = 0
    width: int
    height: int
    sampler_name: str = SAMPLER
    cfg_scale: float
    steps: int
    batch_size: int
    restore_faces: bool = False
    face_restoration_model: str | None = None
    sd_model_name: str
    sd_model_hash: str | None = None
    sd_vae_name: str | None = None
    sd_vae_hash: str | None = None
    seed_resize_from_w: int = -1
    seed_resize_from_h: int = -1
    denoising_strength: float | None
    extra_generation_params: dict[str, str]
    index_of_first_image: int = 0
    infotexts: list[str]
    styles: list[str] = []
    job_timestamp: str
    clip_skip: int = 1
    is_using_inpainting_conditioning: bool = False
    version: str = VERSION
    warnings: tuple[str, ...]
    job: str
    nag: AppliedGuidance
    timings: Timings


class SdapiImagesView(BaseModel):
    """`images` are PNGs in base64. `parameters` repeats the request. `info` is JSON as text, with the seeds, the texts
    about the images and `warnings`, which names what was left out.
    """

    images: list[str]
    parameters: dict[str, Any]
    info: str


class SdapiStateView(BaseModel):
    """The job that is made, or waits to be."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class SdapiProgressView(BaseModel):
    """How far the caller's oldest job is that was asked for by these routes. `progress` is 0 to 1, `eta_relative` in
    seconds; `current_image` is its latest preview.
    """

    progress: float = 0.0
    eta_relative: float = 0.0
    state: SdapiStateView = SdapiStateView()
    current_image: str | None = None
    textinfo: str | None = None


class SdapiModelView(BaseModel):
    """A model that makes images. `title` is its id, which sd_model_checkpoint takes."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class SdapiSamplerView(BaseModel):
    """The one sampler: each model's own scheduler."""

    name: str = SAMPLER
    aliases: list[str] = []
    options: dict[str, str] = {}


class SdapiSchedulerView(BaseModel):
    """The one scheduler: each model's own."""

    name: str = SAMPLER.lower()
    label: str = SAMPLER
    aliases: list[str] | None = None
    default_rho: float = -1.0
    need_inner_model: bool = False


class SdapiUpscalerView(BaseModel):
    """The one upscaler, which is none."""

    name: str = "None"
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float = 1.0


class SdapiLoraView(BaseModel):
    """A LoRA that the caller may name in a prompt, as <lora:name:weight>."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any]


class SdapiOptionsView(BaseModel):
    """The settings that clients look for; `sd_model_checkpoint` alone can be changed."""

    sd_model_checkpoint: str
    sd_checkpoint_hash: str = ""
    sd_vae: str = SAMPLER
    CLIP_stop_at_last_layers: int = 1
    samples_format: str = "png"
    enable_pnginfo: bool = True
    live_previews_enable: bool = False
    return_grid: bool = False
    eta_noise_seed_delta: int = 0


class SdapiChangedView(BaseModel):
    """What was not set."""

    warnings: list[str]


class SdapiPngInfoView(BaseModel):
    """The text about a file's making, its other texts, and what the first one says."""

    info: str
    items: dict[str, str]
    parameters: dict[str, str]


async def images_view(job: Job, asked: SdapiBody, service: Service) -> SdapiImagesView:
    """Returns a finished job's images. Raises Gone, Conflict, and the job's own error."""
    result, request = completed_result(job), job.request
    prompt, negative = asked.prompt or "", request.negative_prompt or ""
    seeds = [artifact.seed for artifact in result.artifacts]
    texts = [infotext(job, prompt, seed, VERSION) for seed in seeds]
    images = []
    if asked.send_images is not False:
        try:
            files = await asyncio.gather(*(service.artifacts.read(artifact.name) for artifact in result.artifacts))
        except FileNotFoundError as exc:
            raise Gone(f"the result of job {job.id} is no longer kept") from exc
        pairs = zip(files, texts, strict=True)
        images = [base64.b64encode(with_parameters(file, text)).decode() for file, text in pairs]
    info = InfoView(
        prompt=prompt, all_prompts=[prompt] * len(seeds),
        negative_prompt=negative, all_negative_prompts=[negative] * len(seeds),
        seed=seeds[0], all_seeds=seeds, subseed=seeds[0], all_subseeds=seeds,
        width=request.width, height=request.height, cfg_scale=request.guidance_scale,
        steps=request.num_inference_steps, batch_size=len(seeds), sd_model_name=request.model,
        denoising_strength=request.strength, infotexts=texts, job_timestamp=_timestamp(job.created_at),
        extra_generation_params={}, warnings=echo(job)["warnings"], job=job.id, nag=result.nag, timings=result.timings,
    )  # fmt: skip
    names = type(asked).model_fields.keys() - NOT_REPEATED
    return SdapiImagesView(images=images, parameters=asked.model_dump(include=names), info=info.model_dump_json())


def progress_view(jobs: list[Job], preview: str | None) -> SdapiProgressView:
    """Returns the progress of the first of these jobs, which have not ended."""
    if not jobs:
        return SdapiProgressView()
    job = jobs[0]
    steps = job.request.steps
    left_s = 0.0
    if job.status is JobStatus.IN_PROGRESS and job.step and job.started_at is not None:
        left_s = max(0.0, time.time() - job.started_at) / job.step * (steps - job.step)
    return SdapiProgressView(
        progress=job.step / steps,
        eta_relative=left_s,
        state=SdapiStateView(
            job=job.id,
            job_count=len(jobs),
            job_timestamp=_timestamp(job.created_at),
            sampling_step=job.step,
            sampling_steps=steps,
        ),
        current_image=preview,
        textinfo="Waiting…" if job.status is JobStatus.QUEUED else None,
    )


def model_view(model: Model) -> SdapiModelView:
    return SdapiModelView(title=model.id, model_name=model.id, filename=model.id)


def lora_view(lora: RegisteredLora) -> SdapiLoraView:
    facts = {"base": lora.base, "trigger_words": list(lora.trigger_words), "description": lora.description}
    return SdapiLoraView(name=lora.id, alias=lora.id, path=lora.id, metadata=facts)


def _timestamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y%m%d%H%M%S")
