"""One rule for query strings: what a route has, and `api-version`; anything else is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.api.openapi.__main__ import FILE
from tests.tiers import one_of_each

OPERATIONS = [
    (method.upper(), path)
    for path, methods in json.loads(FILE.read_text(encoding="utf-8"))["paths"].items()
    for method in methods
]

#: Routes that take forms alone, and a field of theirs.
FORMS = {"/v1/files": "purpose", "/v1/loras": "base"}


@pytest.mark.parametrize("operation", one_of_each(5, OPERATIONS))
async def test_an_unknown_parameter_is_refused_and_a_version_is_not(
    api: httpx.AsyncClient, operation: tuple[str, str]
) -> None:
    method, path = operation
    body: dict[str, Any] = {}
    if method == "POST" and path in FORMS:
        body = {"files": {FORMS[path]: (None, "x")}}
    elif method == "POST" and not path.endswith("/cancel"):
        body = {"json": {"prompt": 1}}
    answer = await api.request(method, path + "?limitt=1&api-version=2025-04-01&other=2&limitt=3", **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_request", "limitt"), error
    assert error["message"].count("limitt: unknown parameter of the query") == 1
    assert "; other: unknown parameter of the query" in error["message"]
    answer = await api.request(method, path + "?api-version=2025-04-01", **body)
    assert "api-version" not in answer.text


async def test_the_parameter_that_is_likely_meant_is_named(api: httpx.AsyncClient) -> None:
    error = (await api.get("/v1/jobs", params={"limits": 3})).json()["error"]
    assert error["message"] == "limits: unknown parameter of the query; did you mean limit?"


async def test_pages_and_what_is_no_route_are_answered_as_ever(api: httpx.AsyncClient) -> None:
    assert (await api.get("/", params={"utm_source": "x"})).status_code == 200
    assert (await api.get("/docs", params={"utm_source": "x"})).status_code == 200
    assert (await api.get("/v1/nothing", params={"x": "y"})).status_code == 404
