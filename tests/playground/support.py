"""What a reader of the page does, and what goes wrong in it unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

#: The console speaks of some violations only.
VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => told(`${event.violatedDirective} ${event.blockedURI}`));
"""
#: A browser writes this itself of every refusal; the tests look at what the page says.
REFUSED = re.compile(r"Failed to load resource: (the server responded with a status of 4\d\d|net::ERR_FAILED)")


class WatchedPage:
    """A page, and all that went wrong in it but for what is `expecting`."""

    def __init__(self, page: Page, host: str, expecting: str | None) -> None:
        self.page = page
        self._host = host
        self._expecting = expecting and re.compile(expecting)
        self._violations: list[str] = []
        self._wrong: list[str] = []
        page.expose_function("told", lambda said: self._violations.append(said))
        page.add_init_script(VIOLATIONS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._wrong.append(f"error {error}"))
        page.on("request", self._sent)

    def check(self) -> None:
        if self._expecting is not None:
            assert self._violations
            assert all(map(self._expecting.match, self._violations)), self._violations
            return
        assert self._violations == []
        assert self._wrong == [], self._wrong

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not REFUSED.match(message.text):
            self._wrong.append(f"{message.type} {message.text}")

    def _sent(self, request: Request) -> None:
        if not request.url.startswith("blob:") and f"//{self._host}/" not in request.url:
            self._wrong.append(f"asked another server: {request.url}")


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()


def ask(page: Page, mode: str, fields: Mapping[str, str] | None = None) -> None:
    """Fills the form by its labels and presses the button."""
    choose(page, mode)
    for label, text in (fields or {}).items():
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name=mode, exact=True).click()


def told(page: Page, text: str) -> None:
    """Waits until a screen reader is told this."""
    expect(page.locator("#said")).to_contain_text(text, timeout=60_000)


def pictures(scope: Page | Locator) -> list[dict[str, Any]]:
    """What was loaded: alternative text, and pixels of width."""
    found = scope.locator(".outputs img")
    for each in found.all():
        each.evaluate("(image) => image.decode()")
    shown: list[dict[str, Any]] = found.evaluate_all(
        "(images) => images.map((image) => ({alt: image.alt, width: image.naturalWidth}))"
    )
    return shown


def job_ids(page: Page) -> list[str]:
    """Of the run that is shown, from what the page knows."""
    ids: list[str] = page.evaluate(
        """async () => {
          const folder = document.querySelector("script[type=module]").src;
          const { state } = await import(new URL("state.js", folder).href);
          return (state.run?.cells ?? []).filter((cell) => cell.job).map((cell) => cell.job.id);
        }"""
    )
    return ids
