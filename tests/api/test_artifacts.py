"""Files by their signed links."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

from app.artifacts import Artifacts
from app.settings import Settings
from tests.api.keyed import by, keyed
from tests.api.support import FakeWorker, serving


@pytest.fixture
async def output(api: httpx.AsyncClient, worker: FakeWorker) -> dict[str, Any]:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape", "seed": 7}, headers={"prefer": "wait=10"})).json()
    return dict(job["outputs"][0])


async def test_a_link_is_the_file(api: httpx.AsyncClient, output: dict[str, Any]) -> None:
    answer = await api.get(output["url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert len(answer.content) == output["size_bytes"] == int(answer.headers["content-length"])
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    assert answer.headers["content-disposition"].startswith('inline; filename="job_')
    head = await api.head(output["url"])
    assert (head.status_code, head.content) == (200, b"")
    own = ("x-request-id", "date", "cache-control")  # of each answer: the last is the time that is left
    assert {**head.headers, **dict.fromkeys(own)} == {**answer.headers, **dict.fromkeys(own)}
    unchanged = await api.get(output["url"], headers={"if-none-match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_link_that_was_changed_is_refused(api: httpx.AsyncClient, output: dict[str, Any]) -> None:
    url = output["url"]
    path, _, query = url.partition("?")
    later = query.replace(str(output["url_expires_at"]), str(output["url_expires_at"] + 1))
    other = "A" if url[-9] != "A" else "B"
    for changed in (path, f"{path}?{later}", f"{path}?expires=&signature=", f"{url[:-9]}{other}{url[-8:]}",
                    url.replace("-0-", "-1-"), url.replace("/job_", "/..%2Fjob_")):  # fmt: skip
        answer = await api.get(changed)
        assert (answer.status_code, answer.json()["error"]["code"]) in [(403, "invalid_signature"), (404, "not_found")]


async def test_a_link_expires_and_the_job_gives_another(
    api: httpx.AsyncClient, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape"}, headers={"prefer": "wait=10"})).json()
    [output] = job["outputs"]
    monkeypatch.setattr("app.artifacts.signed_urls.time", SimpleNamespace(time=lambda: output["url_expires_at"]))
    answer = await api.get(output["url"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "expired")
    [again] = (await api.get(f"/v1/jobs/{job['id']}")).json()["outputs"]
    assert again["url_expires_at"] > output["url_expires_at"]
    assert (await api.get(again["url"])).status_code == 200
    assert (await api.get(f"/v1/jobs/{job['id']}/result")).status_code == 200


async def test_a_link_needs_no_key_where_all_else_does(
    settings: Settings, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(keyed(settings)) as api:
        asked = {"prefer": "wait=10", **by("alice")}
        job = (await api.post("/v1/jobs", json={"prompt": "a shape"}, headers=asked)).json()
        [output] = job["outputs"]
        assert (await api.get(output["url"])).status_code == 200
        assert (await api.get(f"/v1/jobs/{job['id']}/result")).status_code == 401
        for headers in ({}, by("alice")):
            assert (await api.get(output["url"][:-3], headers=headers)).status_code == 403


async def test_a_link_to_what_is_gone(api: httpx.AsyncClient, output: dict[str, Any], settings: Settings) -> None:
    await Artifacts.open(settings).delete(output["url"].partition("?")[0].rpartition("/")[2])
    answer = await api.get(output["url"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "expired")
