"""openapi.json: what is committed is what is served and keeps its promises; `serving` holds every answer to it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app.api.openai.schemas import VideoBody
from app.api.openapi import refusals
from app.api.openapi.__main__ import FILE, text
from app.api.openapi.examples import REQUESTS
from tests.api.support import FakeWorker

DOCUMENT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
OPERATIONS = {operation["operationId"]: operation for path in DOCUMENT["paths"].values() for operation in path.values()}


async def test_what_is_committed_is_what_is_served(api: httpx.AsyncClient) -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "a route has changed: make openapi"
    assert (await api.get("/openapi.json")).json() == DOCUMENT


def test_no_refusal_is_left_of_an_operation_that_is_gone() -> None:
    assert refusals.OWN.keys() == OPERATIONS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_told_whole(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["tags"][0] in {each["name"] for each in DOCUMENT["tags"]}
    assert "500" in operation["responses"]
    for status, answer in operation["responses"].items():
        if status < "4":
            continue
        [(kind, content)] = answer["content"].items()
        assert (kind, content["schema"]) == ("application/json", {"$ref": "#/components/schemas/Error"})
        assert content["examples"]
        for each in content["examples"].values():
            example = DOCUMENT["components"]["examples"][each["$ref"].rpartition("/")[2]]["value"]
            assert set(example["error"]) == {"message", "type", "param", "code"}


def test_nothing_of_fastapis_own_errors_is_left() -> None:
    assert "ValidationError" not in FILE.read_text(encoding="utf-8").replace("HTTPValidationError", "ValidationError")


@pytest.mark.parametrize(("name", "title"), [(name, title) for name, of in REQUESTS.items() for title in of])
async def test_an_example_is_accepted(api: httpx.AsyncClient, worker: FakeWorker, name: str, title: str) -> None:
    example = REQUESTS[name][title]
    if name == "create_video":  # of a model that is not served here
        VideoBody.model_validate(example)
        return
    [path] = [path for path, of in DOCUMENT["paths"].items() if of.get("post", {}).get("operationId") == name]
    answer = await api.post(path, json=example)
    assert answer.is_success, answer.text
