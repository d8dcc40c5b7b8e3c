"""The page before an API that asks for keys; a scripted worker stands behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Browser, Page, expect

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import keyed
from tests.api.support import serving, working
from tests.playground.conftest import Visit
from tests.playground.support import ask, pictures, told


@asynccontextmanager
async def scripted(settings: Settings) -> AsyncIterator[str]:
    queue = Queue.connect(settings)
    async with serving(settings) as client, working(queue, settings):
        yield str(client.base_url)
    await queue.close()


@pytest.fixture
def asking(browser: Browser, settings: Settings) -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(scripted(keyed(settings))) as url:
        yield url


def use(page: Page, key: str) -> None:
    page.get_by_label("This server asks for an API key").fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_key_is_asked_for_kept_for_the_tab_and_sent_in_no_address(visit: Visit, asking: str) -> None:
    page = visit(asking)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    use(page, "not-a-key")
    expect(page.get_by_label("This server asks for an API key")).to_have_accessible_description(
        "The server does not know this key."
    )
    use(page, "alice")
    ask(page, "Generate", {"Prompt": "a circle", "Pictures": "2"})
    told(page, "Done: 2 pictures")
    assert [each["width"] for each in pictures(page)] == [64, 64]
    page.get_by_role("button", name="As code").click()
    code = page.get_by_role("region", name="Code to copy")
    for language in ("curl", "Python, openai", "Python, httpx", "JSON"):
        page.get_by_role("radio", name=language).check()
        assert "alice" not in code.inner_text()
        assert ("NAG_API_KEY" in code.inner_text()) == (language != "JSON")
    assert page.evaluate("Object.entries(sessionStorage)") == [["nag.key", "alice"]]
    assert "alice" not in page.evaluate("JSON.stringify(Object.entries(localStorage))")
    assert not [each for each in addresses if "alice" in each]
    page.reload()
    expect(page.locator("#results .outputs img")).to_have_count(2)
    assert [each["width"] for each in pictures(page.locator("#results"))] == [64, 64]
    page.get_by_role("button", name="forget it").click()
    expect(page.get_by_label("This server asks for an API key")).to_be_visible()


def test_a_job_that_fails_says_why(visit: Visit, asking: str) -> None:
    page = visit(asking)
    use(page, "alice")
    ask(page, "Generate", {"Prompt": "fail"})
    told(page, "Failed: the device ran out of memory")
    expect(page.locator("#results .refused")).to_have_text("the device ran out of memory")
