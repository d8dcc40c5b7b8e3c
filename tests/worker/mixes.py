"""Requests that differ in all that a request can choose, and what each makes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from PIL import Image, ImageDraw

from app.catalog import Catalog
from app.jobs import Guidance, Job
from app.settings import Settings
from app.worker.engine import pipelines
from app.worker.engine.pipeline_call import CallResult
from app.worker.engine.shared_model import SharedModel
from tests.inputs import edit
from tests.pictures import png
from tests.worker.generate import CPU, generate

__all__ = ["FILES", "HALF", "LATE", "NAG", "OFF", "VSF", "alone", "image_mix", "loaded", "video_mix"]

Make = Callable[..., Job]
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")
HALF = Guidance(3.0, 2.0, 0.5, 0.5, "a square on a black background")
VSF = replace(NAG, scale=2.0, method="vsf")
LATE = replace(NAG, start=0.3, method="orthogonal")
OFF = Guidance(1.0, 2.5, 0.25, 1.0, "green")


def circle(color: str) -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((16, 16, 48, 48), fill=color)
    return image


FILES = {
    "red": png(circle("red")),
    "blue": png(circle("blue")),
    "soft": png(Image.linear_gradient("L").resize((64, 64))),
}


@cache
def loaded(name: str) -> SharedModel:
    """The embedded model, loaded once for all tests of this process."""
    entry = Catalog.load(Settings()).models[name]
    return SharedModel(entry, pipelines.load(entry, CPU))


@cache
def alone(job: Job) -> tuple[CallResult, ...]:
    """What each image of the job's is if no other shares a call with it."""
    solo = [replace(job, request=replace(job.request, n=1, seed=job.request.seed + i)) for i in range(job.request.n)]
    return tuple(generate(loaded(job.request.model), one, files=FILES)[0] for one in solo)


def image_mix(make: Make, model: str) -> list[Job]:
    cfg = {"guidance_scale": 4.0, "negative_prompt": "a blue square"}
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": "a shape", "nag": NAG},
        {"nag": HALF, "num_inference_steps": 4},
        {"prompt": "a large blue square on a black background", "nag": VSF},
        {"nag": LATE, "num_inference_steps": 5},
        {"nag": OFF},
        {**cfg, "num_inference_steps": 3},
        {**cfg, "guidance_scale": 1.5, "nag": NAG},
        {"guidance_scale": 7.5, "num_inference_steps": 4, "nag": VSF},
        {"num_inference_steps": 1},
        {"num_inference_steps": 1, "nag": NAG, "width": 32},
        {"num_inference_steps": 50, "width": 32, "height": 32, "nag": HALF},
        {"num_inference_steps": 20, "width": 32, "height": 32},
        {"height": 32},
        {"previews": 2, "num_inference_steps": 6},
        {**edit(0.5, "red"), "num_inference_steps": 8, "nag": NAG},
        {**edit(1.0, "blue", "soft"), "num_inference_steps": 3},
        {**edit(0.3, "blue", "soft"), "num_inference_steps": 9, **cfg, "nag": LATE},
        {"n": 2, "prompt": "a green triangle"},
    ]
    return [make(f"{i}", model=model, seed=i, **change) for i, change in enumerate(changes)]


def video_mix(make: Make, model: str) -> list[Job]:
    small = {"width": 32, "height": 32, "num_frames": 5, "fps": 8, "output_format": "mp4", "video_codec": "h264"}
    cfg = {"guidance_scale": 4.0, "negative_prompt": "a blue square"}
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": "a shape moving left", "nag": NAG},
        {"nag": HALF, "num_inference_steps": 4},
        {"nag": VSF},
        {"nag": LATE, "num_inference_steps": 5},
        {"nag": OFF},
        {**cfg, "num_inference_steps": 3},
        {**cfg, "guidance_scale": 1.5, "nag": NAG},
        {"guidance_scale": 7.5, "num_inference_steps": 4, "nag": VSF},
        {"num_inference_steps": 1},
        {"num_inference_steps": 1, "nag": NAG},
        {"num_inference_steps": 50, "nag": HALF},
        {"num_inference_steps": 20},
        {"num_frames": 9},
        {"num_frames": 9, "height": 64, "nag": NAG},
        {"prompt": "a green triangle standing still", "num_inference_steps": 7, "fps": 4},
    ]
    return [make(f"{i}", model=model, seed=i, **{**small, **change}) for i, change in enumerate(changes)]
