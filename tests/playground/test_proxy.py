"""The playground and the API reference in a browser, behind nginx with TLS and under a path."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from app.cli.local_service import running
from tests.nginx import make_certificate, needs_nginx, running_nginx
from tests.playground.conftest import WAIT_MS, Visit
from tests.playground.support import ask, choose, pictures, told
from tests.ports import free_ports

pytestmark = needs_nginx

FEW = {"Steps": "2", "Pictures": "2"}


@pytest.fixture(scope="module")
def public_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a whole service. A request outside its path is answered by closing the connection, which a test would see."""
    folder = tmp_path_factory.mktemp("proxied")
    certificate, key = make_certificate(folder)
    [port] = free_ports(1)
    url = f"https://localhost:{port}/nag/"
    with running(folder, settings={"NAG_PUBLIC_URL": url, "NAG_MODELS": "shapes-flux"}) as service:
        server = (
            f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
            f"location / {{ return 444; }} location /nag/ {{ proxy_pass {service}/; }}"
        )
        with running_nginx(folder, {port: server}):
            yield url


def test_the_playground_works_under_a_path(visit: Visit, public_url: str) -> None:
    page = visit(public_url, ignore_https_errors=True)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    choose(page, "Generate")
    ask(page, "Generate", FEW)
    told(page, "Done: 2 pictures")
    assert [picture["width"] for picture in pictures(page)] == [64, 64]
    of_server = [url for url in requested if not url.startswith("blob:")]
    assert any("/events" in url for url in of_server)
    assert [url for url in of_server if not url.startswith(public_url)] == []


def test_the_reference_tries_requests_out_under_a_path(visit: Visit, public_url: str) -> None:
    page = visit(public_url, ignore_https_errors=True)
    page.get_by_role("link", name="API reference").click()
    expect(page.locator(".servers select")).to_have_value("/nag", timeout=WAIT_MS)
    operation = page.locator("#operations-models-list_models")
    operation.get_by_role("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".request-url")).to_contain_text(f"{public_url}v1/models", timeout=WAIT_MS)
    expect(operation.locator(".live-responses-table")).to_contain_text("shapes-flux", timeout=WAIT_MS)
