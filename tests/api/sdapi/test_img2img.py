"""Images that start from others by the routes of AUTOMATIC1111: files, masks, sizes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.artifacts import Artifacts
from app.jobs import Generation, InputRole
from app.settings import Settings
from tests.api.sdapi.test_txt2img import warnings_of
from tests.api.support import FakeWorker, serving, working

ROUTE = "/sdapi/v1/img2img"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def halves(size: tuple[int, int] = (64, 64), left: Any = RED, right: Any = BLUE, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


IMAGE = encoded(halves())


async def stored(settings: Settings, request: Generation, role: InputRole) -> Image.Image:
    [name] = [file.name for file in request.inputs if file.role is role]
    return Image.open(io.BytesIO(await Artifacts.open(settings).read(name)))


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_an_image_is_changed_as_far_as_the_strength_goes(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings, prefix: str
) -> None:
    sent = {"init_images": [prefix + IMAGE], "prompt": "a shape", "steps": 8, "denoising_strength": 0.5}
    answer = await api.post(ROUTE, json=sent)
    assert warnings_of(answer) == []
    [request] = worker.seen
    assert (request.task, request.strength, request.steps) == ("img2img", 0.5, 4)
    image = await stored(settings, request, InputRole.IMAGE)
    assert (image.getpixel((0, 32)), image.getpixel((63, 32))) == (RED, BLUE)
    assert "init_images" not in answer.json()["parameters"]


async def test_the_defaults_are_the_web_uis(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    assert warnings_of(await api.post(ROUTE, json={"init_images": [IMAGE], "denoising_strength": None})) == []
    assert worker.seen[0].strength == 0.75
    said = warnings_of(await api.post(ROUTE, json={"init_images": [IMAGE], "denoising_strength": 0}))
    assert said == ["denoising_strength: one step is the least that is run, for 0"]
    assert worker.seen[1].steps == 1


BLACK, WHITE, CLEAR, SOLID = (0, 0, 0), (255, 255, 255), (9, 9, 9, 0), (9, 9, 9, 255)


@pytest.mark.parametrize(
    ("mask", "invert", "regenerated"),
    [
        (halves(left=BLACK, right=WHITE), 0, [0, 255]),
        (halves(left=BLACK, right=WHITE), 1, [255, 0]),
        (halves(left=BLACK, right=WHITE), True, [255, 0]),
        (halves(left=0, right=1, mode="1"), None, [0, 255]),
        (halves(left=100, right=200, mode="L"), 0, [0, 255]),
        (halves((128, 128), BLACK, WHITE), 0, [0, 255]),
        (halves(left=CLEAR, right=SOLID, mode="RGBA"), 0, [0, 255]),
    ],
)
async def test_a_mask_is_white_where_the_image_is_regenerated(
    api: httpx.AsyncClient,
    worker: FakeWorker,
    settings: Settings,
    mask: Image.Image,
    invert: Any,
    regenerated: list[int],
) -> None:
    sent = {"init_images": [IMAGE], "mask": encoded(mask), "inpainting_mask_invert": invert, "prompt": "a shape"}
    answer = await api.post(ROUTE, json=sent)
    assert warnings_of(answer) == []
    [request] = worker.seen
    assert request.task == "inpaint"
    image = await stored(settings, request, InputRole.MASK)
    assert [image.getpixel((x, 32)) for x in (0, 63)] == regenerated  # white there as the worker reads it


async def test_what_of_masks_cannot_be_honoured_is_said(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    fields = {"mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": True, "inpaint_full_res_padding": 32}
    masked = {"init_images": [IMAGE], "mask": encoded(halves(left=BLACK, right=WHITE)), "prompt": "a shape"}
    assert warnings_of(await api.post(ROUTE, json=masked | fields)) == [
        "mask_blur was left out: a mask has sharp edges",
        "inpainting_fill was left out: masked parts start from the image",
        "inpaint_full_res was left out: the whole image is denoised",
    ]
    assert warnings_of(await api.post(ROUTE, json={"init_images": [IMAGE], **fields})) == []


async def test_a_size_of_other_proportions_crops_the_image(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    wide = {"init_images": [encoded(halves((128, 64)))], "prompt": "a shape"}
    assert warnings_of(await api.post(ROUTE, json=wide)) == []
    cropped = "resize_mode: the image of 128x64 was cropped to the proportions of 64x64"
    assert warnings_of(await api.post(ROUTE, json={**wide, "width": 64, "height": 64, "resize_mode": 0})) == [cropped]
    assert warnings_of(await api.post(ROUTE, json={**wide, "width": 64, "height": 64, "resize_mode": 1})) == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "init_images"),
        ({"init_images": []}, 400, "init_images"),
        ({"init_images": ["?"]}, 400, "init_images.0"),
        ({"init_images": [base64.b64encode(b"no image").decode()]}, 400, "init_images.0"),
        ({"init_images": [IMAGE[: len(IMAGE) // 8 * 4]]}, 400, "init_images.0"),
        ({"init_images": [" "]}, 400, "init_images.0"),
        ({"init_images": ["http://127.0.0.1/a.png"]}, 400, "init_images.0"),
        ({"init_images": ["file-0"]}, 404, "init_images.0"),
        ({"init_images": [IMAGE], "mask": encoded(halves((64, 32)))}, 400, "mask"),
        ({"init_images": [IMAGE], "mask": encoded(Image.new("RGB", (64, 64)))}, 400, "mask"),
        ({"init_images": [IMAGE], "mask": "?"}, 400, "mask"),
        ({"init_images": [IMAGE], "denoising_strength": 1.5}, 422, "denoising_strength"),
        ({"init_images": [IMAGE], "latent_mask": IMAGE}, 400, "latent_mask"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_its_name(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", **fields})
    body = answer.json()
    assert (answer.status_code, body["error"]["param"]) == (status, param), body
    assert worker.seen == []


async def test_further_images_are_left_out(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "init_images": [IMAGE, IMAGE]})
    said = "init_images: model shapes-flux takes 1 here, got 2; the further images were left out"
    assert said in json.loads(answer.json()["info"])["warnings"]
    assert len(worker.seen[0].inputs) == 1


async def test_a_model_that_reads_references_is_told_by_the_prompt(
    settings: Settings, queue: Any, tmp_path: Path
) -> None:
    file = tmp_path / "references.toml"
    file.write_text(
        '[models.told]\nextends = "shapes-flux"\npipeline = "FluxKontextPipeline"\n'
        "inputs = { references = { max = 2 } }\n"
        '[models.text]\nextends = "shapes-flux"\ninputs = {}\n'
    )
    settings = settings.model_copy(update={"catalog": file})
    async with serving(settings) as api, working(queue, settings, "told") as worker:
        sent = {"init_images": [IMAGE, IMAGE], "prompt": "a shape"}
        told = {"override_settings": {"sd_model_checkpoint": "told"}}
        assert warnings_of(await api.post(ROUTE, json=sent | told)) == []
        [request] = worker.seen
        assert (request.task, request.strength, len(request.inputs)) == ("edit", None, 2)
        [said] = warnings_of(await api.post(ROUTE, json=sent | told | {"denoising_strength": 0.6}))
        assert said.startswith("denoising_strength was left out: ")
        text = {"override_settings": {"sd_model_checkpoint": "text"}}
        answer = await api.post(ROUTE, json={"init_images": [IMAGE], "prompt": "a shape"} | text)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_an_editing_model")


async def test_a_large_image_is_no_large_body(settings: Settings, queue: Any) -> None:
    settings = settings.model_copy(update={"body_max_bytes": 2000})
    noise = encoded(Image.effect_noise((64, 64), 100).convert("RGB"))
    assert len(noise) > 2000
    async with serving(settings) as api, working(queue, settings):
        assert (await api.post(ROUTE, json={"init_images": [noise], "prompt": "a shape"})).status_code == 200
        assert (await api.post(ROUTE, json={"init_images": [noise], "prompt": "x" * 2000})).status_code == 413
