"""One real service and one real browser for all of these tests; each has a page of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import browser as chromium
from tests.limits import HANG_S
from tests.packages import install_npm
from tests.playground.support import WatchedPage

AXE = "4.14.1"
WAIT_MS = 60_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = chromium.find()
    if executable is None:
        pytest.skip(f"no browser here: none of {', '.join(chromium.NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--no-proxy-server"])
        yield browser
        browser.close()


@pytest.fixture
def http(service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service, trust_env=False, timeout=HANG_S) as client:
        yield client


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """`visit(url, viewport=…)` opens the page as a newcomer; what the browser complains of fails the test, or must be
    there where the test is `expecting` it.
    """
    watched: list[WatchedPage] = []

    def visit(url: str, expecting: str | None = None, **context: Any) -> Page:
        opened = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        opened.set_default_timeout(WAIT_MS)
        page = opened.new_page()
        watched.append(WatchedPage(page, urlsplit(url).netloc, expecting))
        page.goto(url)
        page.get_by_role("form").first.wait_for()
        return page

    yield visit
    for each in watched:
        each.page.context.close()
        each.check()


@pytest.fixture
def page(visit: Visit, service: str) -> Page:
    """With the embedded model and its example."""
    page = visit(service)
    page.get_by_label("Model").select_option("shapes-flux")
    return page


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    folder = install_npm("axe", {"dependencies": {"axe-core": AXE}})
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()
