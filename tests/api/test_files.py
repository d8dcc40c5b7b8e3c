from __future__ import annotations

import httpx
import pytest

from tests.api.support import FakeWorker


@pytest.fixture
async def url(api: httpx.AsyncClient, worker: FakeWorker) -> str:
    job = (await api.post("/v1/jobs", json={"prompt": "a shape", "seed": 7}, headers={"prefer": "wait=10"})).json()
    return str(job["outputs"][0]["url"])


@pytest.mark.parametrize(
    ("asked", "part"), [("bytes=0-7", slice(0, 8)), ("bytes=20-", slice(20, None)), ("bytes=-5", slice(-5, None))]
)
async def test_a_range_of_the_file(api: httpx.AsyncClient, url: str, asked: str, part: slice) -> None:
    whole = await api.get(url)
    size = len(whole.content)
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    answer = await api.get(url, headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, whole.content[part])
    first, last, _ = part.indices(size)
    assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{size}"
    assert answer.headers["content-length"] == str(last - first)


async def test_a_range_of_an_older_file_is_the_whole_newer_one(api: httpx.AsyncClient, url: str) -> None:
    fresh = await api.get(url, headers={"range": "bytes=0-7", "if-range": (await api.get(url)).headers["etag"]})
    stale = await api.get(url, headers={"range": "bytes=0-7", "if-range": '"another"'})
    assert (fresh.status_code, stale.status_code) == (206, 200)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ("bytes=9999999-", 416, "range_not_satisfiable"),
        ("bytes=7-3", 400, "invalid_parameter"),
        ("pages=1-2", 400, "invalid_parameter"),
        ("bytes", 400, "invalid_parameter"),
    ],
)
async def test_a_range_that_is_not_there(api: httpx.AsyncClient, url: str, asked: str, status: int, code: str) -> None:
    answer = await api.get(url, headers={"range": asked})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, "Range")
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len((await api.get(url)).content)}"
