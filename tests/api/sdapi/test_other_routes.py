"""What clients of AUTOMATIC1111 ask beside images: lists, options, progress, interrupts, texts of files, keys."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from app.api.sdapi.infotext import parse_infotext
from app.api.sdapi.metadata import with_parameters
from app.api.sdapi.routes import NOTHING, REFRESHES
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import keyed
from tests.api.sdapi.test_txt2img import info_of, warnings_of
from tests.api.support import FakeWorker, first_waiting, serving, working
from tests.claiming import claim

TXT2IMG, OPTIONS, PROGRESS, PNG_INFO = (f"/sdapi/v1/{name}" for name in ("txt2img", "options", "progress", "png-info"))
IDLE = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "state": {
        "skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0,
        "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
    },
    "current_image": None,
    "textinfo": None,
}  # fmt: skip


def basic(secret: str, user: str = "user") -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"}


async def test_lists(api: httpx.AsyncClient) -> None:
    models = (await api.get("/sdapi/v1/sd-models")).json()
    assert {model["title"] for model in models} == {"shapes-flux", "shapes-sd", "shapes-sd-turbo"}
    assert set(models[0]) == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert [sampler["name"] for sampler in (await api.get("/sdapi/v1/samplers")).json()] == ["Automatic"]
    assert [scheduler["name"] for scheduler in (await api.get("/sdapi/v1/schedulers")).json()] == ["automatic"]
    assert [upscaler["name"] for upscaler in (await api.get("/sdapi/v1/upscalers")).json()] == ["None"]
    assert [lora["name"] for lora in (await api.get("/sdapi/v1/loras")).json()] == ["dotted", "underlined"]
    for name, answer in NOTHING.items():
        assert (await api.get(f"/sdapi/v1/{name}")).json() == answer
    for name in REFRESHES:
        assert (await api.post(f"/sdapi/v1/{name}")).json() is None
    assert (await api.get("/internal/ping")).json() == {}


async def test_a_model_is_chosen_by_an_option(api: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    """As Open WebUI does: it sends all options back that it was given, with another model."""
    options = (await api.get(OPTIONS)).json()
    assert options["sd_model_checkpoint"] == "shapes-flux"
    answer = await api.post(OPTIONS, json=options | {"sd_model_checkpoint": "shapes-sd"})
    assert (answer.status_code, answer.json()) == (200, None)
    assert (await api.get(OPTIONS)).json()["sd_model_checkpoint"] == "shapes-sd"
    async with working(queue, settings, "shapes-sd") as worker:
        assert info_of(await api.post(TXT2IMG, json={"prompt": "a shape"}))["sd_model_name"] == "shapes-sd"
        assert worker.seen[0].model == "shapes-sd"
    assert (await api.post(OPTIONS, json={"sd_model_checkpoint": ""})).json() is None
    assert (await api.get(OPTIONS)).json()["sd_model_checkpoint"] == "shapes-flux"


@pytest.mark.parametrize(("name", "status"), [("v1-5", 400), ("shapes-wan", 400)])
async def test_a_model_that_makes_no_images_is_refused(api: httpx.AsyncClient, name: str, status: int) -> None:
    answer = await api.post(OPTIONS, json={"sd_model_checkpoint": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, "model")
    assert (await api.get(OPTIONS)).json()["sd_model_checkpoint"] == "shapes-flux"


async def test_an_option_that_cannot_be_set_is_named(api: httpx.AsyncClient) -> None:
    answer = await api.post(OPTIONS, json={"samples_format": "png", "CLIP_stop_at_last_layers": 2, "sd_vae": None})
    assert answer.json() == {"warnings": ["CLIP_stop_at_last_layers was left out: not an option that can be set"]}


async def test_a_chosen_model_that_is_no_longer_served(queue: Queue, settings: Settings) -> None:
    await queue.sdapi.choose("default", "gone")
    async with serving(settings) as api, working(queue, settings):
        assert (await api.get(OPTIONS)).json()["sd_model_checkpoint"] == "shapes-flux"
        said = warnings_of(await api.post(TXT2IMG, json={"prompt": "a shape"}))
        assert said == [
            "override_settings: the model gone, chosen by /sdapi/v1/options, is no longer served; the default was used"
        ]


async def test_progress_of_the_job_under_way(api: httpx.AsyncClient, queue: Queue) -> None:
    assert (await api.get(PROGRESS)).json() == IDLE
    await queue.registry.announce("w", ["shapes-flux"], 60)
    sent = {"prompt": "a shape", "steps": 8, "override_settings": {"live_previews_enable": True}}
    asking = asyncio.create_task(api.post(TXT2IMG, json=sent))
    await first_waiting(queue)
    waiting = (await api.get(PROGRESS)).json()
    assert (waiting["progress"], waiting["state"]["job_count"], waiting["textinfo"]) == (0, 1, "Waiting…")
    [job] = await claim(queue, "w", "shapes-flux", 8, 0.05)
    await queue.heartbeat("w", {job.id: 2})
    assert await queue.publish_preview("w", job.id, 2, 0, b"pixels", "image/jpeg")
    shown = (await api.get(PROGRESS)).json()
    assert (shown["progress"], shown["textinfo"]) == (0.25, None)
    assert (shown["state"]["sampling_step"], shown["state"]["sampling_steps"]) == (2, 8)
    assert (shown["state"]["job"], shown["eta_relative"] > 0) == (job.id, True)
    assert base64.b64decode(shown["current_image"]) == b"pixels"
    assert (await api.get(PROGRESS, params={"skip_current_image": "true"})).json()["current_image"] is None
    assert (await api.post("/sdapi/v1/interrupt")).json() == {}
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
    assert (await api.get(PROGRESS)).json() == IDLE


async def test_an_interrupt_is_of_these_routes_alone(api: httpx.AsyncClient, queue: Queue) -> None:
    other = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()["id"]
    assert (await api.get(PROGRESS)).json() == IDLE
    assert (await api.post("/sdapi/v1/interrupt")).json() == {}
    assert (await api.get(f"/v1/jobs/{other}")).json()["status"] == "queued"


async def test_keys_are_sent_as_a_password_and_tenants_see_their_own(settings: Settings, queue: Queue) -> None:
    async with serving(keyed(settings)) as api:
        refused = await api.get(OPTIONS)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="nag-server"')
        assert refused.json()["detail"] == refused.json()["error"]["message"]
        for headers in (basic("alice"), basic("alice", ""), {"authorization": "Bearer alice"}):
            assert (await api.get(OPTIONS, headers=headers)).status_code == 200
        for wrong in (basic("nobody"), {"authorization": "Basic alice"}, {"authorization": "Basic ="}, basic("")):
            assert (await api.get(OPTIONS, headers=wrong)).status_code == 401
        elsewhere = await api.get("/v1/models", headers=basic("alice"))
        assert (elsewhere.status_code, elsewhere.headers["www-authenticate"]) == (401, "Bearer")
        assert (await api.post(TXT2IMG, json={}, headers=basic("alice-reads"))).status_code == 403

        chosen = await api.post(OPTIONS, json={"sd_model_checkpoint": "shapes-sd"}, headers=basic("alice"))
        assert chosen.status_code == 200
        assert (await api.get(OPTIONS, headers=basic("bob"))).json()["sd_model_checkpoint"] == "shapes-flux"
        await queue.registry.announce("w", ["shapes-flux"], 60)
        asking = asyncio.create_task(api.post(TXT2IMG, json={"prompt": "a shape"}, headers=basic("bob")))
        await first_waiting(queue)
        assert (await api.get(PROGRESS, headers=basic("alice"))).json() == IDLE
        assert (await api.post("/sdapi/v1/interrupt", headers=basic("alice"))).status_code == 200
        assert (await api.get(PROGRESS, headers=basic("bob"))).json()["state"]["job_count"] == 1
        assert (await api.post("/sdapi/v1/interrupt", headers=basic("bob"))).status_code == 200
        assert (await asking).status_code == 409


async def test_a_client_that_leaves_leaves_no_work_behind(api: httpx.AsyncClient, queue: Queue) -> None:
    await queue.registry.announce("w", ["shapes-flux"], 60)
    asking = asyncio.create_task(api.post(TXT2IMG, json={"prompt": "a shape"}))
    job = (await first_waiting(queue)).id
    asking.cancel()
    while (found := await queue.get(job)) is None or not found.status.is_terminal:  # noqa: ASYNC110 - what is tested
        await asyncio.sleep(0.01)
    assert found.status == "cancelled"


TEXT = 'a "round" shape,\nof (two:1.2) lines\nNegative prompt: red,\nblue\nSteps: 4, Sampler: Euler a, CFG scale: 7.5, '
TEXT += 'Seed: 7, Size: 64x32, Model: "a, b: c", Version: v1'
PARSED = {
    "Prompt": 'a "round" shape,\nof (two:1.2) lines', "Negative prompt": "red,\nblue", "Steps": "4",
    "Sampler": "Euler a", "CFG scale": "7.5", "Seed": "7", "Size-1": "64", "Size-2": "32", "Model": "a, b: c",
    "Version": "v1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (TEXT, PARSED),
        ("a shape", {"Prompt": "a shape", "Negative prompt": ""}),
        ("a: b, c: d", {"Prompt": "a: b, c: d", "Negative prompt": ""}),
        ("", {"Prompt": "", "Negative prompt": ""}),
        ("Negative prompt: red", {"Prompt": "", "Negative prompt": "red"}),
    ],
)
def test_an_infotext_is_read(text: str, parsed: dict[str, str]) -> None:
    assert parse_infotext(text) == parsed


def files_with_text() -> dict[str, bytes]:
    """As the web UI and others write them: a text of a PNG in each of its forms, the comment in EXIF of the others."""
    image, found = Image.new("RGB", (8, 8)), {}
    for form in ("tEXt", "zTXt", "iTXt"):
        text = PngInfo()
        if form == "iTXt":
            text.add_itxt("parameters", TEXT)
        else:
            text.add_text("parameters", TEXT, zip=form == "zTXt")
        text.add_text("Software", "a program")
        found[form] = _written(image, "PNG", pnginfo=text)
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + TEXT.encode("utf-16-be")
    return found | {kind: _written(image, kind, exif=exif) for kind in ("JPEG", "WEBP")}


def _written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


async def png_info(api: httpx.AsyncClient, data: bytes, prefix: str = "data:image/png;base64,") -> dict[str, Any]:
    answer = await api.post(PNG_INFO, json={"image": prefix + base64.b64encode(data).decode()})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"info", "items", "parameters"}
    return dict(body)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "JPEG", "WEBP"])
async def test_the_text_of_a_file_is_read(api: httpx.AsyncClient, kind: str) -> None:
    found = await png_info(api, files_with_text()[kind], prefix="")
    assert (found["info"], found["parameters"]) == (TEXT, PARSED)
    assert found["items"] == ({} if kind in ("JPEG", "WEBP") else {"Software": "a program"})


async def test_an_answers_image_is_read_back(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    sent = {"prompt": "a shape, 形", "negative_prompt": "red\nblue", "seed": 7}
    answer = await api.post(TXT2IMG, json=sent)
    found = await png_info(api, base64.b64decode(answer.json()["images"][0]))
    assert found["info"] == info_of(answer)["infotexts"][0]
    assert (found["parameters"]["Prompt"], found["parameters"]["Negative prompt"]) == ("a shape, 形", "red\nblue")
    assert found["parameters"]["Seed"] == "7"


async def test_a_file_without_a_text_has_none(api: httpx.AsyncClient) -> None:
    found = await png_info(api, _written(Image.new("RGB", (8, 8)), "PNG"))
    assert found == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
async def test_what_is_no_image_is_refused(api: httpx.AsyncClient, data: bytes) -> None:
    answer = await api.post(PNG_INFO, json={"image": base64.b64encode(data).decode()})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image"), answer.text


def test_a_png_has_one_text_and_the_same_pixels() -> None:
    image = Image.effect_noise((16, 16), 50)
    text = PngInfo()
    text.add_itxt("parameters", json.dumps({"prompt": "old"}))
    text.add_text("Software", "kept")
    written = Image.open(io.BytesIO(with_parameters(_written(image, "PNG", pnginfo=text), "new 形")))
    assert written.info == {"parameters": "new 形", "Software": "kept"}
    assert written.tobytes() == image.tobytes()
