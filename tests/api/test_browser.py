"""What a browser is told, and what pages of other sites may do."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.api.support import serving
from tests.browser import browsing, find

BODY = {"prompt": "a shape"}
ELSEWHERE = {"origin": "https://evil.example"}


async def test_every_answer_says_what_it_is_not(api: httpx.AsyncClient) -> None:
    for answer in (
        await api.get("/healthz"), await api.get("/v1/jobs/none"), await api.get("/nothing"), await api.get("/docs"),
        await api.post("/v1/jobs", json=BODY), await api.post("/v1/jobs", content=b"x" * 2_000_000),
    ):  # fmt: skip
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    assert (await api.get("/v1/jobs/none")).headers["cache-control"] == "no-store"


async def test_without_a_setting_no_other_origin_is_let_in(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/models", headers=ELSEWHERE)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asking = {**ELSEWHERE, "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in (await api.options("/v1/jobs", headers=asking)).headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "https://", "x"])
async def test_a_page_of_another_site_cannot_send_a_form(api: httpx.AsyncClient, origin: str) -> None:
    answer = await api.post("/v1/videos", files={"prompt": (None, "a shape")}, headers={"origin": origin})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")


async def test_a_page_of_this_server_may(api: httpx.AsyncClient) -> None:
    assert (await api.post("/v1/jobs", json=BODY, headers={"origin": str(api.base_url)})).status_code == 202


async def test_an_origin_that_is_named_may(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"cors_origins": ("https://ours.example",)})) as api:
        ours = {"origin": "https://ours.example"}
        asked = {**ours, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        allowed = await api.options("/v1/jobs", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ours["origin"])
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        answer = await api.post("/v1/jobs", json=BODY, headers=ours)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, ours["origin"])
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert (await api.post("/v1/jobs", json=BODY, headers=ELSEWHERE)).status_code == 403


async def test_the_docs_load_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    page = (await api.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 4  # its icon, too
    assert not re.search(r"<script(?! src)|style=|//", page)
    for each in loaded:
        assert (await api.get(each)).status_code == 200, each


@pytest.mark.parametrize("path", ["/docs/swagger/../../server.py", "/docs/swagger/%2e%2e/%2e%2e/server.py",
                                  "/docs/swagger//etc/passwd", "/docs/swagger/..%2f__init__.py"])  # fmt: skip
async def test_no_other_file_is_served(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.send(httpx.Request("GET", str(api.base_url).rstrip("/") + path))
    assert answer.status_code == 404
    raw = api.build_request("GET", "/")
    raw.url = raw.url.copy_with(raw_path=path.encode())
    assert (await api.send(raw)).status_code == 404


async def test_the_docs_in_a_browser(api: httpx.AsyncClient, tmp_path: Path) -> None:
    """Under the policy that they are served with."""
    if (executable := find()) is None:
        pytest.skip("no Chromium on this machine")
    import asyncio

    def look() -> tuple[int, str]:
        with browsing(executable, tmp_path) as page:
            page.open(f"{api.base_url}/docs".replace("//docs", "/docs"))
            shown = page.evaluate(
                """new Promise((done) => { const look = () => {
                     const found = document.querySelectorAll(".opblock").length;
                     found ? done(found) : setTimeout(look, 50); }; look(); })"""
            )
            return shown, page.evaluate("document.body.innerText")

    shown, text = await asyncio.to_thread(look)
    assert shown >= 10
    assert "/v1/jobs" in text
