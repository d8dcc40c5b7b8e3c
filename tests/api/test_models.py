from __future__ import annotations

from pathlib import Path

import httpx

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
    assert model["nag"].keys() == {"scale", "tau", "alpha", "end", "anneal"}
    assert "repository" not in model  # a folder of this machine is nobody's business
    assert (await api.get("/v1/models/shapes-flux")).json() == model


async def test_a_video_model_says_its_frames(settings: Settings, video_entry: Path) -> None:
    async with serving(settings.model_copy(update={"catalog": video_entry})) as api:
        model = (await api.get(f"/v1/models/{MODEL}")).json()
    assert (model["kind"], model["default"]) == ("video", True)
    assert model["num_frames"] == {"default": 9, "min": 5, "max": 81, "multiple": 4, "offset": 1}
    assert model["fps"] == {"default": 16, "min": 1, "max": 60, "multiple": None, "offset": None}


async def test_an_unknown_model(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models/some/model")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"
