"""What popular clients send with their factory settings, and what they read of the answer.

The bodies are written by hand from what each client was seen to send; docs/server/clients.md has the table.
Each must give an image or a video, with exactly these parameters warned of.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving, working
from tests.catalogs import MODEL
from tests.pictures import png

IMAGES, EDITS, VIDEOS = "/v1/images/generations", "/v1/images/edits", "/v1/videos"
PROMPT = {"prompt": "a shape"}
GRAY = png(Image.new("RGB", (80, 60), "gray"))
#: What the scripted worker adds to every job's warnings.
WORKER = "a worker's word"


@dataclass(frozen=True)
class Call:
    """A request of a client. `files` makes it a form. `reads` is the key of an image that the client takes.

    warned: the parameters that the answer warns of, in this order.
    """

    client: str
    path: str
    body: dict[str, Any]
    reads: str = "b64_json"
    warned: tuple[str, ...] = ()
    files: tuple[tuple[str, tuple[str, bytes, str]], ...] = ()
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def file(name: str) -> tuple[str, tuple[str, bytes, str]]:
    return name, ("a.png", GRAY, "image/png")


DALL_E_2 = {"model": "dall-e-2", "n": 1, "size": "1024x1024"}
DALL_E_3 = {"model": "dall-e-3", "n": 1, "size": "1024x1024"}
AUTO = {"quality": "auto", "size": "auto", "background": "auto"}
H2C = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
SENT = [
    Call("LangChain Python, DallEAPIWrapper", IMAGES, DALL_E_2, "url", ("size",)),
    Call(
        "LangChain.js, DallEAPIWrapper", IMAGES,
        {**DALL_E_3, "response_format": "url", "style": "vivid", "quality": "standard"}, "url", ("style", "size"),
    ),
    Call("CrewAI, DallETool", IMAGES, {**DALL_E_3, "quality": "standard"}, "url", ("size",)),
    Call(
        "agno, DalleTools", IMAGES, {**DALL_E_3, "quality": "standard", "style": "vivid"}, "url", ("style", "size"),
    ),
    Call("agno, OpenAITools", IMAGES, {"model": "gpt-image-2"}),
    Call(
        "Haystack, OpenAIImageGenerator", IMAGES,
        {"model": "gpt-image-2", "quality": "auto", "size": "1024x1024", "n": 1}, warned=("size",),
    ),
    Call(
        "Open WebUI", IMAGES, {"model": "dall-e-2", "n": 1, "size": "512x512", "response_format": "b64_json"},
        warned=("size",), query="?api-version=2025-04-01-preview",
    ),
    Call(
        "Open WebUI, edit of one file", EDITS, {"model": "gpt-image-1", "n": "1", "size": "512x512"},
        warned=("size",), files=(file("image"),),
    ),
    Call(
        "Open WebUI, edit of several files", EDITS, {"model": "gpt-image-1", "n": "1", "size": "512x512"},
        warned=("image", "size"), files=(file("image[]"), file("image[]")),
    ),
    Call("LibreChat", IMAGES, {"model": "gpt-image-1", **AUTO, "n": 1}),
    Call("LibreChat, edit", EDITS, {"model": "gpt-image-1", **AUTO}, files=(file("image"),)),
    Call("n8n, gpt-image-1", IMAGES, {"model": "gpt-image-1"}),
    Call(
        "n8n, dall-e-3", IMAGES,
        {"model": "dall-e-3", "quality": "hd", "style": "natural", "size": "1024x1024", "response_format": "url"},
        "url", ("quality", "style", "size"),
    ),
    Call(
        "n8n, edit", EDITS, {"model": "gpt-image-1", "input_fidelity": "low", "n": "1"}, files=(file("image[]"),),
    ),
    Call("n8n, video", VIDEOS, {"model": "sora-2", "seconds": "8", "size": "1280x720"}, warned=("seconds", "size")),
    Call("openai SDK, video", VIDEOS, {"model": "sora-2-pro", "seconds": "12"}, warned=("seconds",)),
    Call(
        "Home Assistant, generate_image", IMAGES,
        {**DALL_E_3, "quality": "standard", "style": "vivid", "response_format": "url"}, "url", ("style", "size"),
    ),
    Call("LiteLLM", IMAGES, {"model": "shapes-flux", "negative_prompt": "red", "seed": 7}),
    Call("Vercel AI SDK, openai", IMAGES, {"model": "gpt-image-1", "n": 1, "size": "1024x1024"}, warned=("size",)),
    Call(
        "Vercel AI SDK, openai-compatible", IMAGES,
        {"model": "shapes-flux", "n": 1, "size": "64x64", "response_format": "b64_json", "negative_prompt": "red"},
    ),
    Call(
        "Together SDK", IMAGES,
        {"model": "shapes-flux", "steps": 4, "response_format": "base64", "negative_prompt": "red", "n": 1},
    ),
    Call(
        "GPUStack", IMAGES,
        {
            "model": "gpt-image-1", "size": "512x512", "n": 1, "seed": -1, "cfg_scale": 4.5, "sample_method": "euler",
            "sampling_steps": 20, "schedule_method": "discrete", "guidance": 3.5, "negative_prompt": "",
        },
        warned=("cfg_scale", "sample_method", "sampling_steps", "schedule_method", "guidance", "seed", "size"),
    ),
    Call(
        "Dify", IMAGES,
        {**DALL_E_3, "quality": "standard", "style": "vivid", "response_format": "b64_json", "negative_prompt": ""},
        warned=("style", "size"),
    ),
    Call("big-AGI", IMAGES, {"model": "gpt-image-1", "n": 1, "size": "auto", "moderation": "low"}),
    Call("JDK HttpClient, Spring AI, langchain4j", IMAGES, {**DALL_E_3, "quality": "hd"}, "url", ("quality", "size"),
         headers=H2C),
]  # fmt: skip


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.client)
async def test_a_client_gets_what_it_asks_for(settings: Settings, queue: Queue, video_entry: Path, sent: Call) -> None:
    model = MODEL if sent.path == VIDEOS else "shapes-flux"
    served = settings.model_copy(update={"models": ("shapes-flux", MODEL), "catalog": video_entry})
    async with serving(served) as api, working(queue, settings, model) as worker:
        body = PROMPT | sent.body
        how: dict[str, Any] = {"data": body, "files": list(sent.files)} if sent.files else {"json": body}
        answer = await api.post(sent.path + sent.query, headers=sent.headers, **how)
        assert answer.status_code == 200, answer.text
        read = answer.json()
        warnings = [warning for warning in read["warnings"] if warning != WORKER]
        assert [warning.replace(":", " ").split()[0] for warning in warnings] == list(sent.warned)
        assert (read["model"], read.get("alias_of", read["model"])) == (sent.body["model"], model)
        if sent.path == VIDEOS:
            assert read["object"] == "video"
            job = await queue.wait(read["id"], 20)
            assert job is not None
            assert job.status == "completed"
        else:
            await check_image(api, read["data"], sent.reads)
        assert [asked.model for asked in worker.seen] == [model]


async def check_image(api: httpx.AsyncClient, data: list[dict[str, Any]], reads: str) -> None:
    """One image, by the one key that the client reads; no key is null."""
    [image] = data
    assert image.keys() & {"b64_json", "url"} == {reads}
    assert None not in image.values()
    raw = base64.b64decode(image["b64_json"]) if reads == "b64_json" else (await api.get(image["url"])).content
    assert Image.open(io.BytesIO(raw)).size == (64, 64)


async def test_nextcloud_learns_that_there_are_images(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    """It sends a model that is none, and takes 404 and 401 for "this server makes no images"."""
    answer = await api.post(IMAGES, json={"prompt": "a", "model": "invalid-model"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "model_not_found", "model")
    assert "served are shapes-flux" in error["message"]


async def test_n8n_finds_models_by_names_that_it_knows(api: httpx.AsyncClient) -> None:
    """It lists ids that contain dall-e, gpt-image or sora, and no others."""
    models = {model["id"]: model.get("alias_of") for model in (await api.get("/v1/models")).json()["data"]}
    known = {name: of for name, of in models.items() if any(part in name for part in ("dall-e", "gpt-image", "sora"))}
    assert known == dict.fromkeys(
        ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "dall-e-2", "dall-e-3"), "shapes-flux"
    ) | dict.fromkeys(("sora-2", "sora-2-pro"), "shapes-wan")
