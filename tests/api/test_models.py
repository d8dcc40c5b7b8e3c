from __future__ import annotations

import httpx


async def test_the_catalog_in_openais_shape_with_limits(api: httpx.AsyncClient) -> None:
    listed = (await api.get("/v1/models")).json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"], model["default"]) == ("shapes-flux", "model", True)
    assert isinstance(model["created"], int)
    assert model["width"] == {"default": 64, "min": 64, "max": 64, "multiple": 16}
    assert model["nag_supported"]
    assert model["nag"].keys() == {"scale", "tau", "alpha", "end"}
    assert "path" not in model  # a folder of this machine is nobody's business
    assert (await api.get("/v1/models/shapes-flux")).json() == model


async def test_an_unknown_model(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models/some/model")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"
