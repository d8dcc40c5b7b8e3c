"""The API behind proxies: under another scheme, host or path."""

from __future__ import annotations

import re
from ipaddress import ip_network
from urllib.parse import urljoin

import httpx
import pytest

from app.settings import Settings
from tests.api.support import FakeWorker, serving

IMAGES, JOBS = "/v1/images/generations", "/v1/jobs"
BODY = {"prompt": "a shape", "response_format": "url"}
HERE = ip_network("127.0.0.0/8")
FORWARDED = {
    "x-forwarded-proto": "https", "x-forwarded-host": "images.example.org", "x-forwarded-prefix": "/nag/",
}  # fmt: skip


async def url_of(api: httpx.AsyncClient, headers: dict[str, str]) -> str:
    """What the URL of an image begins with."""
    [image] = (await api.post(IMAGES, json=BODY, headers=headers)).json()["data"]
    return str(image["url"].partition("/v1/")[0])


async def test_headers_of_a_proxy_that_is_trusted_are_believed(settings: Settings, worker: FakeWorker) -> None:
    async with serving(settings.model_copy(update={"trusted_proxies": (HERE,)})) as api:
        own = str(api.base_url).rstrip("/")
        assert await url_of(api, FORWARDED) == "https://images.example.org/nag"
        assert await url_of(api, {"x-forwarded-proto": "https, http"}) == own.replace("http:", "https:")
        assert await url_of(api, {}) == own
        wrong = {"x-forwarded-proto": "gopher", "x-forwarded-host": "a b", "x-forwarded-prefix": "//evil/../x"}
        assert await url_of(api, wrong) == own


@pytest.mark.parametrize("trusted", [(), (ip_network("10.0.0.0/8"),), (ip_network("::1/128"),)])
async def test_of_anybody_else_they_are_not(
    settings: Settings, worker: FakeWorker, trusted: tuple[object, ...]
) -> None:
    async with serving(settings.model_copy(update={"trusted_proxies": trusted})) as api:
        assert await url_of(api, FORWARDED) == str(api.base_url).rstrip("/")
        assert (await api.post(JOBS, json={"prompt": "a"}, headers=FORWARDED)).headers["location"].startswith("/v1/")


async def test_a_public_url_goes_before_headers(settings: Settings, worker: FakeWorker) -> None:
    both = settings.model_copy(update={"trusted_proxies": (HERE,), "public_url": "https://ours.example/a/b/"})
    async with serving(both) as api:
        assert await url_of(api, FORWARDED) == "https://ours.example/a/b"


@pytest.mark.parametrize("stripped", [True, False])
@pytest.mark.parametrize("by", ["NAG_PUBLIC_URL", "X-Forwarded-Prefix"])
async def test_under_a_path_every_link_leads_back(
    settings: Settings, worker: FakeWorker, stripped: bool, by: str
) -> None:
    """Whether the proxy strips the path or not; by a client that knows only the public URL."""
    update = {"public_url": "https://ours.example/nag"} if by == "NAG_PUBLIC_URL" else {"trusted_proxies": (HERE,)}
    async with serving(settings.model_copy(update=update)) as api:

        async def ask(method: str, url: str, **how: object) -> httpx.Response:
            """As the proxy sends it on."""
            path = urljoin("https://ours.example/nag/", url).removeprefix("https://ours.example")
            assert path.startswith("/nag/"), url
            path = path.removeprefix("/nag") if stripped else path
            return await api.request(method, path, headers=FORWARDED, **how)  # type: ignore[arg-type]

        page, docs = (await ask("GET", "")).text, (await ask("GET", "docs")).text
        links = re.findall(r'(?:src|href)="([^"]+)"', page + docs)
        assert len(links) > 10
        own = [link for link in links if not link.startswith(("#", "https://arxiv.org/"))]
        for link in [*own, "openapi.json"]:
            assert (await ask("GET", link)).status_code == 200, link
        document = (await ask("GET", "openapi.json")).json()
        assert document["servers"] == [{"url": "/nag"}]
        answer = await ask("POST", "v1/jobs", json={"prompt": "a"})
        job = (await ask("GET", answer.headers["location"] + "/events")).text
        assert "event: completed" in job
        job = (await ask("GET", answer.headers["location"])).json()
        url = job["outputs"][0]["url"]
        assert url.startswith("/nag/v1/artifacts/")
        assert (await ask("GET", url)).status_code == 200
        assert url in (await ask("GET", answer.headers["location"] + "/events")).text
        assert (await ask("GET", "/nag/v1/nothing")).status_code == 404


async def test_the_bare_path_leads_to_the_page(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"public_url": "https://ours.example/nag"})) as api:
        answer = await api.get("/nag")
        assert (answer.status_code, answer.headers["location"]) == (308, "/nag/")
        assert (await api.get("/nagging")).status_code == 404


async def test_without_a_prefix_no_server_is_named(api: httpx.AsyncClient) -> None:
    assert "servers" not in (await api.get("/openapi.json")).json()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://ours.example"}, 202),
        ({"origin": "http://ours.example"}, 403),
        ({"origin": "https://else.example"}, 403),
        ({"origin": "https://else.example", "sec-fetch-site": "same-origin"}, 202),
        ({"origin": "https://else.example", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://else.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "null", "sec-fetch-site": "none"}, 403),
    ],
)
async def test_whose_pages_may_send_requests(settings: Settings, headers: dict[str, str], status: int) -> None:
    """A proxy has changed the host, so that it is not the origin's."""
    async with serving(settings.model_copy(update={"public_url": "https://ours.example/nag"})) as api:
        assert (await api.post(JOBS, json={"prompt": "a"}, headers=headers)).status_code == status


@pytest.mark.parametrize(
    "origin",
    ["app://obsidian.md", "capacitor://localhost", "chrome-extension://abcdefghijklmnop", "tauri://localhost",
     "moz-extension://0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "http://[::1]:3000"],
)  # fmt: skip
async def test_apps_and_extensions_may_be_allowed(settings: Settings, origin: str) -> None:
    allowed = Settings(cors_origins=origin).cors_origins  # type: ignore[arg-type]
    assert allowed == (origin,)
    async with serving(settings.model_copy(update={"cors_origins": allowed})) as api:
        asking = {"origin": origin, "access-control-request-method": "POST"}
        assert (await api.options(JOBS, headers=asking)).headers["access-control-allow-origin"] == origin
        answer = await api.post(JOBS, json={"prompt": "a"}, headers={"origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, origin)
        assert "x-nag-warnings" in answer.headers["access-control-expose-headers"]
        other = origin.replace("://", "://x")
        assert (await api.post(JOBS, json={"prompt": "a"}, headers={"origin": other})).status_code == 403


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/path", "app://", "javascript:alert(1)", "null"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        Settings(cors_origins=origin)  # type: ignore[arg-type]


def test_networks_of_proxies_are_read() -> None:
    read = Settings(trusted_proxies="127.0.0.1, fd00::/8").trusted_proxies  # type: ignore[arg-type]
    assert [str(network) for network in read] == [
        "127.0.0.1/32", "fd00::/8",
    ]  # fmt: skip
