from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from app.queue.queue import Queue
from app.queue.registry import ModelState
from app.settings import Settings
from tests.api.support import serving
from tests.catalogs import MODEL


async def test_the_catalog_in_openais_shape_with_limits(api: httpx.AsyncClient) -> None:
    listed = (await api.get("/v1/models")).json()
    assert listed["object"] == "list"
    model, *others = listed["data"]
    assert (model["id"], model["object"], model["default"]) == ("shapes-flux", "model", True)
    assert not any(other["default"] for other in others)
    assert isinstance(model["created"], int)
    assert model["width"] == {"default": 64, "min": 64, "max": 64, "multiple": 16, "offset": None}
    assert (model["kind"], model["num_frames"], model["fps"]) == ("image", None, None)
    assert model["nag_supported"]
    assert model["nag"].keys() == {"scale", "tau", "alpha", "end", "scale_decay", "start", "method"}
    assert model["speed"] == {
        "attention": "native", "cache": None, "quantization": None, "compile": "none", "channels_last": False,
        "offload": "none", "vae_tiling": False, "parallel": None,
    }  # fmt: skip
    assert model["profile"] is None
    assert "repository" not in model  # a folder of this machine is nobody's business
    assert (await api.get("/v1/models/shapes-flux")).json() == model


async def test_a_video_model_says_its_frames(settings: Settings, video_entry: Path) -> None:
    async with serving(settings.model_copy(update={"catalog": video_entry})) as api:
        model = (await api.get(f"/v1/models/{MODEL}")).json()
    assert (model["kind"], model["default"]) == ("video", True)
    assert model["num_frames"] == {"default": 9, "min": 5, "max": 81, "multiple": 4, "offset": 1}
    assert model["fps"] == {"default": 16, "min": 1, "max": 60, "multiple": None, "offset": None}


async def test_a_model_is_as_far_as_the_furthest_worker(api: httpx.AsyncClient, queue: Queue) -> None:
    async def told() -> tuple[object, ...]:
        model = (await api.get("/v1/models/shapes-sd")).json()
        return model["state"], model["progress"], model["error"]

    async def announce(worker: str, *warm: str, **state: Any) -> None:
        await queue.registry.announce(worker, warm, 60, states={"shapes-sd": ModelState(**state)} if state else None)

    assert await told() == ("cold", None, None)
    await announce("a", stage="failed", error="it asks for a login")
    assert await told() == ("failed", None, "it asks for a login")
    await announce("b", stage="downloading", done_bytes=3, total_bytes=12)
    assert await told() == ("downloading", {"done_bytes": 3, "total_bytes": 12}, None)
    await announce("c", "shapes-sd")
    assert await told() == ("warm", None, None)
    assert (await api.get("/v1/models")).json()["data"][0]["state"] == "cold"


async def test_without_a_queue_the_limits_are_told_all_the_same(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})) as api:
        answer = await api.get("/v1/models/shapes-sd")
    assert (answer.status_code, answer.json()["state"]) == (200, None)


async def test_an_unknown_model(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models/some/model")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"
