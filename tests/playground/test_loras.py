"""LoRAs are picked and weighed; what is sent is read from the code that the page shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.loras.lora_files import good
from tests.playground.conftest import Visit
from tests.playground.support import choose


@pytest.fixture
def page(visit: Visit, service: str, http: httpx.Client) -> Iterator[Page]:
    """With two more LoRAs of the embedded model."""
    for name, words in (("inked", "with an outline"), ("crayon", "")):
        form = {"id": name, "base": "shapes-flux", "trigger_words": words, "scale_max": "1.5"}
        http.post("/v1/loras", files={"file": ("x", good())}, data=form).raise_for_status()
    page = visit(service)
    page.get_by_label("Model").select_option("shapes-flux")
    choose(page, "Generate")
    page.get_by_label("Prompt", exact=True).fill("a shape")
    page.get_by_role("button", name="As code").click()
    yield page
    for name in ("inked", "crayon"):
        http.delete(f"/v1/loras/{name}").raise_for_status()


def sent(page: Page) -> Any:
    choose(page, "JSON")
    return json.loads(page.get_by_role("region", name="Code to copy").inner_text()).get("loras")


def test_loras_are_picked_and_weighed(page: Page) -> None:
    assert sent(page) is None
    page.get_by_text("LoRAs", exact=True).first.click()
    expect(page.get_by_text("Say: with an outline.")).to_be_visible()
    page.get_by_label("inked", exact=True).check()
    page.get_by_label("crayon", exact=True).check()
    page.get_by_label("Weight of crayon").fill("0.5")
    assert sent(page) == [{"id": "inked"}, {"id": "crayon", "scale": 0.5}]
    page.reload()
    expect(page.get_by_label("Weight of crayon")).to_have_value("0.5")  # kept as a draft
    page.get_by_label("inked", exact=True).uncheck()
    page.get_by_role("button", name="As code").click()
    assert sent(page) == [{"id": "crayon", "scale": 0.5}]
    choose(page, "Python, httpx")
    code = page.get_by_role("region", name="Code to copy").inner_text()
    body = code.partition("body = ")[2].partition("\n}")[0] + "\n}"
    assert eval(body)["loras"] == [{"id": "crayon", "scale": 0.5}]
    page.get_by_label("Model").select_option("tiny-wan")
    expect(page.get_by_label("crayon", exact=True)).to_have_count(0)
    assert sent(page) is None


def test_a_weight_out_of_range_is_said_there(page: Page) -> None:
    page.get_by_text("LoRAs", exact=True).first.click()
    page.get_by_label("inked", exact=True).check()
    page.get_by_label("Weight of inked").fill("9")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("#field-loras-error")).to_contain_text("must be 0 to 1.5 for inked, got 9")
