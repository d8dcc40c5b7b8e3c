"""Text to image by the routes of AUTOMATIC1111, over real sockets: what each field becomes, and what is said of it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.api.sdapi.infotext import parse_infotext
from app.jobs import Guidance, LoraUse
from app.settings import Settings
from tests.api.support import FakeWorker, serving, working
from tests.metrics_text import read

ROUTE = "/sdapi/v1/txt2img"
NAG = Guidance(5.0, 2.5, 0.25, 1.0, "a red shape")
#: The body of the PyPI package webuiapi 0.9.17 for `txt2img(prompt="a shape")`.
WEBUIAPI = {
    "enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0,
    "hr_resize_y": 0, "hr_checkpoint_name": None, "hr_sampler_name": None, "hr_scheduler": None, "hr_prompt": "",
    "hr_negative_prompt": "", "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0,
    "prompt": "a shape", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0, "seed_resize_from_h": 0,
    "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 20, "cfg_scale": 7.0, "width": 512, "height": 512,
    "restore_faces": False, "tiling": False, "do_not_save_samples": False, "do_not_save_grid": False,
    "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {},
    "override_settings_restore_afterwards": True, "sampler_name": "Euler a", "scheduler": "automatic",
    "sampler_index": "Euler a", "script_name": None, "script_args": [], "send_images": True, "save_images": False,
    "alwayson_scripts": {},
}  # fmt: skip


def info_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    info = json.loads(answer.json()["info"])
    assert isinstance(info, dict)
    return info


def warnings_of(answer: httpx.Response) -> list[str]:
    """Without the one that the worker adds to each job."""
    *warnings, last = info_of(answer)["warnings"]
    assert last == "a worker's word"
    return warnings


async def test_the_images_and_what_clients_read_of_them(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    sent = {
        "prompt": "a shape",
        "negative_prompt": "a red shape",
        "batch_size": 2,
        "n_iter": 1.0,
        "seed": 7,
        "steps": 6,
    }
    answer = await api.post(ROUTE, json=sent)
    info, body = info_of(answer), answer.json()
    assert set(body) == {"images", "parameters", "info"}
    assert (body["parameters"]["prompt"], body["parameters"]["n_iter"]) == ("a shape", 1)
    images = [Image.open(io.BytesIO(base64.b64decode(image))) for image in body["images"]]
    assert [image.getpixel((0, 0)) for image in images] == [(7, 0, 0), (8, 0, 0)]
    assert (info["seed"], info["all_seeds"], info["all_subseeds"]) == (7, [7, 8], [7, 8])
    assert (info["all_prompts"], info["all_negative_prompts"]) == (["a shape"] * 2, ["a red shape"] * 2)
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (64, 64, 6, 1.0)
    assert (info["sd_model_name"], info["index_of_first_image"], info["batch_size"]) == ("shapes-flux", 0, 2)
    assert [image.info["parameters"] for image in images] == info["infotexts"]
    assert parse_infotext(info["infotexts"][1]) == {
        "Prompt": "a shape", "Negative prompt": "a red shape", "Steps": "6", "Sampler": "Automatic", "CFG scale": "1",
        "Seed": "8", "Size-1": "64", "Size-2": "64", "Model": "shapes-flux", "NAG scale": "5", "NAG tau": "2.5",
        "NAG alpha": "0.25", "NAG end": "1", "NAG scale decay": "0", "NAG start": "0", "NAG method": "nag",
        "Version": "nag-server 0.1.0",
    }  # fmt: skip
    assert (await api.get(f"/v1/jobs/{info['job']}")).json()["status"] == "completed"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_client_at_its_factory_settings(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    """Each field that means something was honoured, or a warning names it; none of the others is mentioned."""
    answer = await api.post(ROUTE, json=WEBUIAPI)
    assert warnings_of(answer) == [
        "sampler_name, sampler_index were left out: each model has its own scheduler",
        "cfg_scale was left out: model shapes-flux is used without CFG; NAG honours the negative prompt",
        "width: model shapes-flux makes no 512x512; the nearest, 64x64, was used",
    ]
    [request] = worker.seen
    assert (request.num_inference_steps, request.guidance_scale, request.nag) == (20, 1.0, None)
    assert request.seed < 2**32


#: As SillyTavern sends it: what its own server was told is part of the body.
SILLYTAVERN = {
    "url": "http://127.0.0.1:7860", "auth": "", "prompt": "a shape", "negative_prompt": "a red shape",
    "sampler_name": "DDIM", "scheduler": "normal", "steps": 20, "cfg_scale": 7, "width": 512, "height": 512,
    "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 1.5,
    "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": -1, "clip_skip": 1,
    "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []},
    "override_settings_restore_afterwards": True, "save_images": True, "send_images": True,
    "do_not_save_grid": False, "do_not_save_samples": False,
}  # fmt: skip
OPEN_WEBUI = {"prompt": "a shape", "batch_size": 1, "width": 512, "height": 512, "steps": 50, "negative_prompt": ""}


@pytest.mark.parametrize(("body", "said", "counted", "nag"), [
    (SILLYTAVERN, ["sampler_name, scheduler", "url", "cfg_scale", "width"],
     {"sampler_name", "scheduler", "other", "cfg_scale", "width"}, NAG),
    (OPEN_WEBUI, ["width"], {"width"}, None),
])  # fmt: skip
async def test_bodies_of_other_clients(
    api: httpx.AsyncClient, worker: FakeWorker, body: dict[str, Any], said: list[str], counted: set[str],
    nag: Guidance | None,
) -> None:  # fmt: skip
    found = warnings_of(await api.post(ROUTE, json=body))
    assert [re.split(" w|:", warning)[0] for warning in found] == said
    assert (worker.seen[0].nag, worker.seen[0].num_inference_steps) == (nag, body["steps"])
    counts = {name[1]: count for name, count in (await read(api)).items() if name[0] == "nag_request_warnings_total"}
    assert counts == dict.fromkeys(counted, 1.0)  # each parameter that a warning names; `url` is none of the API


@pytest.mark.parametrize(
    ("fields", "nag"),
    [
        ({}, None),
        ({"negative_prompt": ""}, None),
        ({"negative_prompt": None}, None),
        ({"negative_prompt": " "}, None),
        ({"negative_prompt": "a red shape"}, NAG),
        ({"negative_prompt": "a red shape", "cfg_scale": 7}, NAG),
        ({"negative_prompt": "a red shape", "nag": {"scale": 7.0}}, Guidance(7.0, 2.5, 0.25, 1.0, "a red shape")),
    ],
)
async def test_a_negative_prompt_is_nag(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], nag: Guidance | None
) -> None:
    assert (await api.post(ROUTE, json={"prompt": "a shape", **fields})).status_code == 200
    assert (worker.seen[0].nag, worker.seen[0].guidance_scale) == (nag, 1.0)


@pytest.fixture
def cfg_catalog(tmp_path: Path) -> Path:
    """The embedded model with CFG by default."""
    file = tmp_path / "cfg.toml"
    file.write_text('[models.cfg]\nextends = "shapes-flux"\nguidance_scale = { default = 4.0, min = 1.0, max = 5.0 }\n')
    return file


async def test_cfg_is_for_models_whose_default_it_is(settings: Settings, queue: Any, cfg_catalog: Path) -> None:
    settings = settings.model_copy(update={"catalog": cfg_catalog})
    async with serving(settings) as api, working(queue, settings, "cfg") as worker:
        for cfg_scale, used, said in (
            (3, 3.0, []),
            (7, 5.0, ["cfg_scale: model cfg takes 1 to 5, not 7.0; 5.0 was used"]),
            (None, 4.0, []),
        ):
            sent = {"prompt": "a shape", "negative_prompt": "red", "cfg_scale": cfg_scale}
            answer = await api.post(ROUTE, json={**sent, "override_settings": {"sd_model_checkpoint": "cfg"}})
            assert warnings_of(answer) == said
            request = worker.seen.pop()
            assert (request.model, request.guidance_scale, request.nag) == ("cfg", used, None)
            assert request.negative_prompt == "red"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"restore_faces": True}, "restore_faces was left out: there is no face restoration"),
        ({"tiling": True}, "tiling was left out: images do not tile"),
        ({"styles": ["anime"]}, "styles was left out: there are no stored styles; say it in the prompt"),
        (
            {"enable_hr": True, "hr_scale": 2},
            "enable_hr was left out: there is no second pass; ask for the final width and height",
        ),
        ({"scheduler": "Karras", "eta": 0.5}, "scheduler, eta were left out: each model has its own scheduler"),
        ({"subseed_strength": 0.1}, "subseed_strength was left out: seeds have no variations"),
        ({"refiner_checkpoint": "sdxl-refiner"}, "refiner_checkpoint was left out: there is no refiner"),
        ({"distilled_cfg_scale": 3.5}, "distilled_cfg_scale was left out: it is part of the model's entry"),
        ({"steps": 150}, "steps: model shapes-flux takes 1 to 50, not 150; 50 was used"),
        ({"batch_size": 4, "n_iter": 4}, "batch_size and n_iter: 10 images are the most of one request, for 16"),
        ({"width": 80}, "width: model shapes-flux makes no 80x64; the nearest, 64x64, was used"),
        ({"url": "http://x", "auth": "a:b", "ü": 1}, "url, auth, ü were left out: not known here"),
        (
            {"override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 0}},
            "override_settings.CLIP_stop_at_last_layers was left out: not a setting of one request here",
        ),
        (
            {"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "face_yolov8n.pt"}]}}},
            "alwayson_scripts.ADetailer was left out: there are no scripts",
        ),
        (
            {"prompt": "a (round:1.2) shape"},
            "prompt: weights of words such as (word:1.2), schedules, BREAK and tags in <> are read as plain text",
        ),
        (
            {"negative_prompt": "(red:1.4), <lora:striped:1>"},
            "negative_prompt: weights of words such as (word:1.2), schedules, BREAK and tags in <> are read as plain "
            "text",
        ),
    ],
)
async def test_what_cannot_be_honoured_is_said(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], said: str
) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", **fields})
    assert warnings_of(answer) == [said]
    info = info_of(answer)
    job = (await api.get(f"/v1/jobs/{info['job']}")).json()
    assert job["warnings"] == info["warnings"]


@pytest.mark.parametrize(
    "fields",
    [
        {"alwayson_scripts": {}},
        {"alwayson_scripts": {"ControlNet": {"args": []}}},
        {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False, "image": "x"}]}}},
        {"alwayson_scripts": {"animatediff": {"args": [False]}}},
        {"sampler_name": "", "scheduler": "Automatic", "sampler_index": None},
        {"cfg_scale": 1, "steps": None, "seed": None, "width": None, "styles": None, "prompt": "a shape"},
        {"script_name": "", "infotext": "", "hr_upscaler": "Latent", "denoising_strength": 0.4},
        {"seed": -3, "batch_size": None, "override_settings": None, "save_images": True},
    ],
)  # fmt: skip
async def test_what_asks_for_nothing_is_not_mentioned(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any]
) -> None:
    assert warnings_of(await api.post(ROUTE, json={"prompt": "a shape", **fields})) == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"alwayson_scripts": {"ControlNet": {"args": [{"image": "x"}]}}}, 400, "alwayson_scripts.ControlNet"),
        ({"alwayson_scripts": {"reactor": {"args": ["a face", True]}}}, 400, "alwayson_scripts.reactor"),
        ({"script_name": "x/y/z plot"}, 400, "script_name"),
        ({"infotext": "a cat\nSteps: 20"}, 400, "infotext"),
        ({"prompt": "<hypernet:x:1>"}, 400, "prompt"),
        ({"prompt": "<lora:striped:much>"}, 400, "prompt"),
        ({"prompt": "<lora:striped:1:0.5>"}, 400, "prompt"),
        ({"prompt": "<lora: :1>"}, 400, "prompt"),
        ({"prompt": "<lora:nobody:1>"}, 400, "loras.0.id"),
        ({"prompt": "x" * 3000}, 400, "prompt"),
        ({"prompt": "".join(f"<lora:l{index}:1>" for index in range(9))}, 400, "prompt"),
        ({"override_settings": {"sd_model_checkpoint": "v1-5"}}, 400, "model"),
        ({"override_settings": {"sd_model_checkpoint": 5}}, 400, "override_settings.sd_model_checkpoint"),
        ({"override_settings": {"sd_model_checkpoint": "\ud800"}}, 400, "override_settings.sd_model_checkpoint"),
        ({"nag": {"scale": 0.5}}, 400, "nag.scale"),
        ({"steps": 0}, 422, "steps"),
        ({"steps": "many"}, 422, "steps"),
        ({"width": 1.5}, 422, "width"),
        ({"seed": 2**63}, 422, "seed"),
    ],
)  # fmt: skip
async def test_what_would_change_the_image_is_refused(
    api: httpx.AsyncClient, worker: FakeWorker, fields: dict[str, Any], status: int, param: str
) -> None:
    content = json.dumps({"prompt": "a shape", **fields})  # httpx cannot send half of a surrogate pair
    answer = await api.post(ROUTE, content=content, headers={"content-type": "application/json"})
    body = answer.json()
    assert (answer.status_code, body["error"]["param"]) == (status, param), body
    assert body["detail"] == body["errors"] == body["error"]["message"]
    assert worker.seen == []


async def test_loras_are_named_in_the_prompt(settings: Settings, queue: Any, tmp_path: Path) -> None:
    file = tmp_path / "loras.toml"
    file.write_text("".join(LORA.format(name=name) for name in ("striped", "outlined", "round")))
    settings = settings.model_copy(update={"catalog": file})
    async with serving(settings) as api, working(queue, settings) as worker:
        prompt = "a shape <lora:striped:0.8>, <lora:outlined> <LyCO:round:0.5:0.5>"
        answer = await api.post(ROUTE, json={"prompt": prompt})
        info = info_of(answer)
        assert worker.seen[0].prompt == "a shape ,"
        assert worker.seen[0].loras == (LoraUse("striped", 0.8), LoraUse("outlined", 1.0), LoraUse("round", 0.5))
        assert info["prompt"] == prompt
        assert parse_infotext(info["infotexts"][0])["LoRAs"] == "striped: 0.8, outlined: 1, round: 0.5"
        answer = await api.post(ROUTE, json={"prompt": prompt, "disable_extra_networks": True})
        assert worker.seen[1].prompt == prompt
        assert "tags in <>" in warnings_of(answer)[0]
        names = [lora["name"] for lora in (await api.get("/sdapi/v1/loras")).json()]
        assert {"outlined", "round", "striped"} <= {*names}


LORA = """
[loras.{name}]
base = "shapes-flux"
repository = "me/{name}"
weight_name = "a.safetensors"
revision = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
"""


async def test_no_images_where_none_are_wanted(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape", "send_images": False, "seed": 3})
    assert answer.json()["images"] == []
    assert info_of(answer)["all_seeds"] == [3]


async def test_a_failed_job_is_an_error(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(ROUTE, json={"prompt": "fail"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "out_of_memory")
    assert answer.json()["detail"] == "the device ran out of memory"


async def test_nobody_works(api: httpx.AsyncClient) -> None:
    answer = await api.post(ROUTE, json={"prompt": "a shape"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")


async def test_a_key_repeated_is_the_same_job_and_other_numbers_are_not(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    headers = {"idempotency-key": "k"}
    first, again, other = [
        await api.post(ROUTE, json={"prompt": "a shape", "steps": steps}, headers=headers) for steps in (6, 6, 7)
    ]
    assert info_of(first)["job"] == info_of(again)["job"]
    assert (other.status_code, len(worker.seen)) == (409, 1)


async def test_the_routes_can_be_turned_off(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"sdapi": False})) as api:
        api.event_hooks = {"response": []}  # openapi.json tells of the routes
        for path in ("/sdapi/v1/options", "/sdapi/v1/sd-models", "/internal/ping"):
            assert (await api.get(path)).status_code == 404
        assert (await api.post(ROUTE, json={"prompt": "a shape"})).status_code == 404
        assert (await api.get("/v1/models")).status_code == 200
