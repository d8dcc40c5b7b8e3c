"""LoRAs of a request on every route that generates, over a real socket: from the field to the worker and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.catalog import Catalog
from app.jobs import LoraUse
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving, working
from tests.pictures import png

CATALOG = """
[loras.ink]
base = "shapes-flux"
path = "ink.safetensors"
scale = { default = 0.75, min = -1, max = 1.5 }

[loras.oil]
base = "shapes-flux"
path = "oil.safetensors"

[loras.moving]
base = "shapes-wan"
path = "moving.safetensors"
"""
SENT = [{"id": "ink"}, {"id": "oil", "scale": 0.5}]
USED = (LoraUse("ink", 0.75), LoraUse("oil", 0.5))
ECHOED = [{"id": "ink", "scale": 0.75}, {"id": "oil", "scale": 0.5}]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "more.toml").write_text(CATALOG)
    changed = settings.model_copy(update={"catalog": tmp_path / "more.toml"})
    assert Catalog.load(changed).loras
    return changed


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as client:
        yield client


async def test_jobs(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post("/v1/jobs", json={"prompt": "a shape", "loras": SENT}, headers={"prefer": "wait=10"})
    assert answer.status_code == 200, answer.text
    assert (worker.seen[-1].loras, answer.json()["loras"]) == (USED, ECHOED)
    assert answer.json()["request"]["loras"] == ECHOED


async def test_images(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post("/v1/images/generations", json={"prompt": "a shape", "loras": SENT})
    assert answer.status_code == 200, answer.text
    assert (worker.seen[-1].loras, answer.json()["loras"]) == (USED, ECHOED)


FORMS: dict[str, list[tuple[str, str]]] = {
    "a JSON list": [("loras", json.dumps(SENT))],
    "JSON objects": [("loras", json.dumps(SENT[0])), ("loras[]", json.dumps(SENT[1]))],
    "texts": [("loras", "ink"), ("loras", "oil=0.5")],
    "indices": [("loras[0][id]", "ink"), ("loras[1][id]", "oil"), ("loras[1][scale]", "0.5")],
    "as the SDKs write it": [
        ("loras[][id]", "ink"), ("loras[][id]", "oil"), ("loras[][scale]", "0.75"), ("loras[][scale]", "0.5"),
    ],
    "as the SDKs write it, mixed": [
        ("loras[][id]", "ink"), ("loras[][scale]", "0.75"), ("loras[][id]", "oil"), ("loras[][scale]", "0.5"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
async def test_edits(api: httpx.AsyncClient, worker: FakeWorker, fields: list[tuple[str, str]]) -> None:
    parts: list[tuple[str, Any]] = [
        ("image", ("a.png", png(Image.new("RGB", (64, 64))))),
        ("prompt", (None, "a shape")),
    ]
    parts += [(name, (None, text)) for name, text in fields]
    answer = await api.post("/v1/images/edits", files=parts)
    assert answer.status_code == 200, answer.text
    assert (worker.seen[-1].loras, answer.json()["loras"]) == (USED, ECHOED)


@pytest.mark.parametrize("as_form", [False, True])
async def test_videos(api: httpx.AsyncClient, queue: Queue, settings: Settings, as_form: bool) -> None:
    body = {"model": "shapes-wan", "prompt": "a shape"}
    if as_form:
        parts = [(name, (None, text)) for name, text in (*body.items(), ("loras", "moving=0.5"))]
        answer = await api.post("/v1/videos", files=parts)
    else:
        answer = await api.post("/v1/videos", json=body | {"loras": [{"id": "moving", "scale": 0.5}]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["loras"] == [{"id": "moving", "scale": 0.5}]
    async with working(queue, settings, "shapes-wan") as worker:
        await queue.wait(answer.json()["id"], 10)
    assert worker.seen[-1].loras == (LoraUse("moving", 0.5),)


WRONG: list[tuple[list[tuple[str, str]], int, str]] = [
    ([("loras", "[{")], 422, "must be JSON"),
    ([("loras", '[{"id": "ink", "id": "oil"}]')], 422, "must be JSON"),
    ([("loras", '["ink"]')], 422, "loras.0"),
    ([("loras", "ink=much")], 422, "loras.0.scale"),
    ([("loras", "ink=nan")], 422, "loras.0.scale"),
    ([("loras", "inc")], 400, "no LoRA 'inc'; model shapes-flux takes dotted, ink, oil, underlined"),
    ([("loras", "moving")], 400, "moving is a LoRA for shapes-wan"),
    ([("loras", "ink=2")], 400, "loras.0.scale: must be -1 to 1.5"),
    ([("loras", "ink"), ("loras", "ink")], 400, "ink is there twice"),
    ([("loras[0][id]", "ink"), ("loras[0][id]", "oil")], 422, "sent twice"),
    ([("loras[0][name]", "ink")], 422, "loras.0"),
    ([("loras[][id]", "ink"), ("loras[][id]", "oil"), ("loras[][scale]", "1")], 422, "for each LoRA or for none"),
    ([("loras[x][id]", "ink")], 422, "must be loras"),
    ([("loras", f"ink{number}") for number in range(9)], 422, "at most 8"),
]


@pytest.mark.parametrize(("fields", "status", "message"), WRONG)
async def test_a_form_that_is_wrong_says_where(
    api: httpx.AsyncClient, queue: Queue, fields: list[tuple[str, str]], status: int, message: str
) -> None:
    parts: list[tuple[str, Any]] = [
        ("image", ("a.png", png(Image.new("RGB", (64, 64))))),
        ("prompt", (None, "a shape")),
    ]
    answer = await api.post("/v1/images/edits", files=[*parts, *((name, (None, text)) for name, text in fields)])
    error = answer.json()["error"]
    assert (answer.status_code, message in error["message"]) == (status, True), error
    assert error["param"].startswith("loras")
    assert await queue.depth("shapes-flux") == 0


async def test_the_name_that_others_give_the_field(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/jobs", json={"prompt": "a shape", "lora": "ink"})
    assert "did you mean loras" in answer.json()["error"]["message"]
