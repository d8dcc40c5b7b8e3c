"""The API behind a real nginx, with TLS and under a path: every link leads back, and events come as they happen."""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from PIL import Image

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.sse import listening
from tests.api.support import serving, working
from tests.api.webhooks.receiver import body, receiving, with_webhooks
from tests.nginx import make_certificate, needs_nginx, running_nginx
from tests.ports import free_ports

pytestmark = needs_nginx

[DOCUMENTATION] = (Path(__file__).parents[2] / "docs").rglob("clients.md")
DOCUMENTED, FORWARDING = re.findall(r"```nginx\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
WAYS = {
    "as the documentation has it": DOCUMENTED,
    "the path stays": DOCUMENTED.replace("8000/;", "8000;"),
    "nothing but proxy_pass": "location /images/ { proxy_pass http://127.0.0.1:8000/; }",
    "forwarded headers": FORWARDING,
}
IMAGES = "v1/images/generations"


@asynccontextmanager
async def proxied(settings: Settings, folder: Path, way: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that knows the public address alone."""
    [port] = free_ports(1)
    certificate, key = make_certificate(folder)
    url = f"https://localhost:{port}/images/"
    if way == "forwarded headers":
        settings = settings.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})
    else:
        settings = settings.model_copy(update={"public_url": url})
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
    context = ssl.create_default_context(cafile=certificate)
    async with serving(settings) as api:
        directives = tls + WAYS[way].replace("127.0.0.1:8000", f"127.0.0.1:{api.base_url.port}")
        with running_nginx(folder, {port: directives}):
            async with httpx.AsyncClient(base_url=url, verify=context, timeout=30, trust_env=False) as client:
                yield client


@pytest.fixture(params=WAYS)
async def public(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    async with proxied(with_webhooks(settings), tmp_path, request.param) as client:
        yield client


def size_of(answer: httpx.Response) -> tuple[int, int]:
    return Image.open(io.BytesIO(answer.content)).size


async def test_pages_and_links_lead_back(public: httpx.AsyncClient, settings: Settings, queue: Queue) -> None:
    base = str(public.base_url)
    page, docs = await public.get(""), await public.get("docs")
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text + docs.text)
    own = [url for link in links if (url := urljoin(base, link)).startswith(base)]
    assert len(own) > 10
    assert [link for link in links if not urljoin(base, link).startswith((base, "https://arxiv.org/"))] == []
    for url in own:
        assert (await public.get(url)).status_code == 200, url
    assert (await public.get("openapi.json")).json()["servers"] == [{"url": "/images"}]

    async with working(queue, settings):
        answer = await public.post(
            IMAGES, json={"prompt": "a", "response_format": "url"}, headers={"origin": base.removesuffix("/images/")}
        )
        [image] = answer.json()["data"]
        assert image["url"].startswith(f"{base}v1/artifacts/")
        assert size_of(await public.get(image["url"])) == (64, 64)
        job = await public.post("v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=20"})
        location, path = urljoin(base, job.headers["location"]), job.json()["outputs"][0]["url"]
        assert (location, path[:21]) == (f"{base}v1/jobs/{job.json()['id']}", "/images/v1/artifacts/")
        assert (await public.get(location)).json()["status"] == "completed"
        assert (await public.get(urljoin(base, path), headers={"range": "bytes=0-7"})).content == b"\x89PNG\r\n\x1a\n"


async def test_events_come_as_they_happen(public: httpx.AsyncClient) -> None:
    job = (await public.post("v1/jobs", json={"prompt": "a"})).json()["id"]
    async with asyncio.timeout(30), listening(public, job) as events:
        assert (await anext(events)).type == "queued"  # read while the job still waits
        assert (await public.post(f"v1/jobs/{job}/cancel")).json()["status"] == "cancelled"
        assert (await anext(events)).type == "cancelled"


async def test_links_of_a_webhook_lead_back(settings: Settings, queue: Queue, tmp_path: Path) -> None:
    settings = with_webhooks(settings)
    async with (
        receiving() as receiver,
        proxied(settings, tmp_path, "as the documentation has it") as public,
        working(queue, settings),
    ):
        await public.post("v1/jobs", json=body(receiver))
        [message] = await receiver.hears(1)
        url = message["data"]["outputs"][0]["url"]
        assert url.startswith(f"{public.base_url}v1/artifacts/")
        assert size_of(await public.get(url)) == (64, 64)


async def test_headers_that_a_client_forwards_are_replaced(settings: Settings, queue: Queue, tmp_path: Path) -> None:
    spoofed = {"x-forwarded-proto": "http", "x-forwarded-host": "evil.example", "x-forwarded-prefix": "/evil"}
    async with proxied(settings, tmp_path, "forwarded headers") as public, working(queue, settings):
        answer = await public.post(IMAGES, json={"prompt": "a", "response_format": "url"}, headers=spoofed)
        assert answer.json()["data"][0]["url"].startswith(f"{public.base_url}v1/artifacts/")
