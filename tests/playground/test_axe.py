"""What axe-core finds: nothing, in any state of the page, light and dark, wide and narrow."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.playground.conftest import Visit
from tests.playground.support import ask, choose, told

RUN = """
async () => (await axe.run(document)).violations.map(
  (each) => `${each.impact} ${each.id}: ${each.nodes.map((node) => node.html).join(" | ")}`)
"""


def found(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    violations: list[str] = page.evaluate(RUN)
    return violations


@pytest.mark.parametrize(
    "context",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing(visit: Visit, service: str, axe: str, context: dict[str, Any]) -> None:
    page = visit(service, **context)
    page.get_by_label("Model").select_option("shapes-flux")
    assert found(page, axe) == []
    page.get_by_role("button", name="As code").click()
    ask(page, "Compare", {"Steps": "1", "Pictures": "1"})
    assert found(page, axe) == []  # while it goes on
    told(page, "Done")
    page.locator("#results summary").first.click()
    assert found(page, axe) == []
    ask(page, "Sweep", {"Steps": "99"})
    told(page, "must be")
    assert found(page, axe) == []
    choose(page, "Generate")
    page.get_by_label("Model").select_option("tiny-wan")
    ask(page, "Generate", {"Prompt": "a shape"})
    told(page, "Done: 1 video")
    assert found(page, axe) == []
