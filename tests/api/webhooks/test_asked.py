"""What is refused before anything is sent."""

from __future__ import annotations

import httpx
import pytest

from app.settings import Settings
from tests.api.support import serving
from tests.api.webhooks.receiver import with_webhooks

PRIVATE = [
    "http://127.0.0.1/", "http://localhost/", "http://LOCALHOST./", "http://a.localhost/", "http://2130706433/",
    "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://10.0.0.1/",
    "http://172.16.0.1/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/",
    "http://0.0.0.0/", "http://[::]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://[fec0::1]/",
    "http://224.0.0.1/", "http://[ff02::1]/", "http://255.255.255.255/", "http://192.0.2.1/", "http://[2001:db8::1]/",
    "http://\u2460\u2461\u2466.0.0.1/", "http://127\u30020\u30020\u30021/",
]  # fmt: skip
ODD = [
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/", "example.com", "", "http://",
    "http://user@example.com/", "http://user:word@example.com/", "http://example.com:22/", "http://example.com:0/",
    "https://example.com:25/", "http://example.com:99999/", "http://exa mple.com/", "javascript:alert(1)",
]  # fmt: skip
FINE = {
    "https://example.com/hook?token=a%20b": "https://example.com/hook?token=a%20b",
    "http://EXAMPLE.com:8080": "http://example.com:8080/",
    "https://bücher.example/ü": "https://xn--bcher-kva.example/%C3%BC",
    "http://8.8.8.8/": "http://8.8.8.8/",
    "https://[2606:4700::1111]:8443/": "https://[2606:4700::1111]:8443/",
}


async def ask(api: httpx.AsyncClient, **webhook: object) -> httpx.Response:
    return await api.post("/v1/jobs", json={"prompt": "a shape", "webhook": webhook})


async def test_a_private_address_is_refused_however_it_is_spelt(settings: Settings) -> None:
    async with serving(with_webhooks(settings, webhook_allow=())) as api:
        for url in PRIVATE:
            answer = await ask(api, url=url)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "webhook_url_refused", "webhook.url")
            assert "private" in error["message"], url
        assert (await api.get("/v1/jobs")).json()["data"] == []


async def test_what_is_no_url_of_a_web_server_is_refused(settings: Settings) -> None:
    async with serving(with_webhooks(settings)) as api:
        for url in ODD:
            answer = await ask(api, url=url)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook.url"), url
        assert (await ask(api, url="https://example.com/" + "a" * 2048)).status_code == 422
        assert (await ask(api, url="https://example.com/", events=["done"])).status_code == 422
        assert (await ask(api, url="https://example.com/", events=[])).status_code == 422
        assert (await ask(api, url="https://example.com/", event="completed")).status_code == 422


async def test_a_job_says_what_is_told_and_where(settings: Settings) -> None:
    async with serving(with_webhooks(settings, webhook_allow=())) as api:
        for url, normal in FINE.items():
            job = (await ask(api, url=url, events=["started", "completed", "started"])).json()
            assert job["webhook"] == {"url": normal, "events": ["started", "completed"]}
        job = (await ask(api, url="https://example.com/")).json()
        assert job["webhook"]["events"] == ["completed", "failed", "cancelled", "expired"]
        assert (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()["webhook"] is None


async def test_without_a_secret_there_are_none(api: httpx.AsyncClient) -> None:
    answer = await ask(api, url="https://example.com/")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "webhook")


@pytest.mark.parametrize("secret", ["x", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "c" * 40])
def test_a_weak_secret_ends_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_ and the base64 of 24 to 64 bytes"):
        Settings(webhook_secret=secret)
