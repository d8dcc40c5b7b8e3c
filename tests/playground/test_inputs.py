"""Requests of the playground that start from files: chosen, dropped, pasted, or picked among the results."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.pictures import png
from tests.playground.conftest import Visit
from tests.playground.support import ask, choose, job_ids, pictures, told
from tests.playground.test_axe import found
from tests.playground.test_code import run, shown

PROMPT = '"$HOME" \\n'
SHORT = {"Steps": "2", "Pictures": "1", "Seed": "7"}
#: Puts a file into an event of the page, as a hand or a clipboard does.
SEND = """
([type, selector, name, kind, data]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(data), (text) => text.charCodeAt(0))], name, { type: kind }));
  const target = document.querySelector(selector);
  const event = type === "paste"
    ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true })
    : new DragEvent(type, { dataTransfer: files, bubbles: true, cancelable: true });
  target.dispatchEvent(event);
  return event.defaultPrevented;
}
"""


def image(color: str) -> FilePayload:
    return {"name": f"{color}.png", "mimeType": "image/png", "buffer": png(Image.new("RGB", (64, 48), color))}


def send(page: Page, type_: str, selector: str, file: FilePayload) -> bool:
    """Returns whether the page took the event for itself."""
    data = base64.b64encode(file["buffer"]).decode()
    taken: bool = page.evaluate(SEND, [type_, selector, file["name"], file["mimeType"], data])
    return taken


def chosen(page: Page, field: str) -> list[str]:
    """The names of the small copies below a field."""
    copies = page.locator(f"[data-input={field}] .files > li > :first-child")
    names: list[str] = copies.evaluate_all("(all) => all.map((one) => one.alt ?? one.getAttribute('aria-label'))")
    return names


@pytest.fixture
def http(files_service: str) -> Any:
    with httpx.Client(base_url=files_service, trust_env=False) as client:
        yield client


@pytest.fixture
def page(visit: Visit, files_service: str) -> Page:
    return visit(files_service)


def requests(http: httpx.Client, page: Page) -> list[dict[str, Any]]:
    return [http.get(f"/v1/jobs/{job_id}").json() for job_id in job_ids(page)]


def roles(job: dict[str, Any]) -> list[str]:
    return [file["role"] for file in job["request"]["inputs"]]


def test_an_edit_by_instruction_without_and_with_nag(page: Page, http: httpx.Client) -> None:
    page.get_by_label("Model").select_option("told")
    page.get_by_label("References", exact=True).set_input_files([image("red"), image("green")])
    assert chosen(page, "references") == ["References: red.png", "References: green.png"]
    assert page.locator(".files img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    expect(page.get_by_text("Say what becomes of it: “make it blue”.")).to_be_visible()
    ask(page, "Compare", {"Prompt": "make it blue", "Negative prompt": "a red shape", **SHORT})
    told(page, "Done: 2 pictures")
    assert {shown["width"] for shown in pictures(page)} == {64}
    without, with_nag = requests(http, page)
    assert [roles(job) for job in (without, with_nag)] == [["reference"] * 2] * 2
    assert [job["nag"]["applied"] for job in (without, with_nag)] == [False, True]
    expect(page.locator(".asked .files img")).to_have_count(2)
    while http.get("/v1/files").json()["data"]:  # the uploads are removed once the jobs have ended
        page.wait_for_timeout(20)
    page.reload()
    expect(page.locator(".asked .files img").first).to_have_attribute("alt", "References: red.png")
    assert chosen(page, "references") == []
    page.get_by_role("button", name="Use these settings").click()
    assert chosen(page, "references") == ["References: red.png", "References: green.png"]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted_anywhere(page: Page, way: str) -> None:
    page.get_by_label("Model").select_option("told")
    assert send(page, way, "#results", image("red"))
    told(page, "red.png added: References")
    page.get_by_label("Model").select_option("film")  # it goes with to the field that suits
    assert chosen(page, "first_frame") == ["First frame: red.png"]
    assert send(page, way, "#field-prompt", image("blue"))
    assert chosen(page, "first_frame") == ["First frame: blue.png"]
    page.get_by_label("Model").select_option("tiny-wan")
    assert send(page, way, "#results", image("green"))
    expect(page.get_by_role("alert")).to_have_text("green.png: tiny-wan does not start from such a file.")


def test_a_file_goes_to_the_field_that_it_is_dropped_on(page: Page) -> None:
    page.get_by_label("Model").select_option("shapes-flux")
    page.get_by_label("Image", exact=True).set_input_files(image("red"))
    assert send(page, "dragover", "[data-input=mask]", image("blue"))  # else the browser would open it
    assert send(page, "drop", "[data-input=mask] label", image("blue"))
    assert (chosen(page, "image"), chosen(page, "mask")) == (["Image: red.png"], ["Mask: blue.png"])
    ask(page, "Generate", {"Prompt": "a shape", **SHORT})
    expect(page.get_by_label("Mask", exact=True)).to_have_accessible_description(re.compile("must be transparent"))
    expect(page.get_by_label("Mask", exact=True)).to_be_focused()


def test_text_is_pasted_as_ever(page: Page) -> None:
    text = """(field) => {
      const data = new DataTransfer();
      data.setData("text/plain", "a shape");
      data.items.add(new File(["x"], "cells.png", { type: "image/png" }));  // as a spreadsheet does
      const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
      field.dispatchEvent(event);
      return event.defaultPrevented;
    }"""
    assert page.get_by_label("Prompt", exact=True).evaluate(text) is False


def test_a_result_is_what_the_next_request_starts_from(page: Page, http: httpx.Client) -> None:
    page.get_by_label("Model").select_option("shapes-flux")
    ask(page, "Generate", {"Prompt": "a red circle", **SHORT})
    told(page, "Done: 1 picture")
    (first,) = job_ids(page)
    page.get_by_role("button", name="Start from a red circle, seed 7").click()
    told(page, "added: Image")
    assert chosen(page, "image") == [f"Image: {first}-0.png"]
    ask(page, "Generate", {"Prompt": "a blue circle", "Strength": "0.5", **SHORT})
    expect(page.get_by_role("heading", name="a blue circle")).to_be_visible()
    told(page, "Done: 1 picture")
    (job,) = requests(http, page)
    assert (roles(job), job["request"]["strength"]) == (["image"], 0.5)


def test_a_video_begins_with_an_image_and_plays(page: Page, http: httpx.Client) -> None:
    page.get_by_label("Model").select_option("film")
    ask(page, "Generate", {"Prompt": "a shape moving", "Negative prompt": "a red shape"})
    field = page.get_by_label("First frame", exact=True)
    expect(field).to_have_accessible_description(re.compile("needs one"))
    expect(field).to_be_focused()
    field.set_input_files(image("red"))
    expect(field).to_have_attribute("aria-invalid", "false")
    page.get_by_role("button", name="Generate", exact=True).click()
    told(page, "Done: 1 video")
    (job,) = requests(http, page)
    assert (roles(job), job["nag"]["applied"]) == (["first_frame"], True)
    if not page.evaluate("""document.createElement("video").canPlayType('video/mp4; codecs="avc1.64000a"')"""):
        pytest.skip("this browser was built without H.264")
    video = page.locator(".outputs video")
    video.evaluate("(video) => new Promise((shown) => video.requestVideoFrameCallback(shown))")
    assert video.evaluate("(video) => video.videoWidth * video.videoHeight") > 0
    page.get_by_label("Model").select_option("changing")
    page.get_by_role("button", name="Start from a shape moving").click()
    told(page, "added: Video")
    assert chosen(page, "video") == [f"Video: {job['id']}-0.mp4"]
    ask(page, "Generate", {"Strength": "1"})
    told(page, "Done: 1 video")
    assert roles(requests(http, page)[0]) == ["video"]


def test_a_file_of_another_kind_is_refused_at_its_field(page: Page, http: httpx.Client) -> None:
    page.get_by_label("Model").select_option("told")
    text: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"buy milk"}
    page.get_by_label("References", exact=True).set_input_files([image("red"), text])
    ask(page, "Generate", {"Prompt": "make it blue", **SHORT})
    field = page.get_by_label("References", exact=True)
    expect(field).to_have_accessible_description(re.compile("notes.txt: must be an image or a video"))
    expect(page.locator("#history li")).to_have_count(0)
    page.get_by_role("button", name="Remove notes.txt from References").click()
    expect(field).to_have_attribute("aria-invalid", "false")
    page.get_by_label("References", exact=True).set_input_files([image("red")] * 4)
    expect(field).to_have_accessible_description(re.compile("told takes 4 at the most"))
    assert len(chosen(page, "references")) == 4
    while http.get("/v1/files").json()["data"]:
        page.wait_for_timeout(20)


def test_the_keyboard_and_a_screen_reader_reach_the_files(page: Page, axe: str) -> None:
    page.get_by_label("Model").select_option("told")
    choose(page, "Generate")
    page.get_by_label("Negative prompt").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_label("References", exact=True)).to_be_focused()
    page.get_by_label("References", exact=True).set_input_files(image("red"))
    told(page, "red.png added: References")
    assert found(page, axe) == []
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove red.png from References")).to_be_focused()
    page.keyboard.press("Enter")
    told(page, "red.png removed: References")
    expect(page.get_by_label("References", exact=True)).to_be_focused()
    assert chosen(page, "references") == []


@pytest.mark.parametrize("language", ["curl", "Python, httpx", "Python, openai"])
@pytest.mark.parametrize("model", ["told", "film"])
def test_the_code_reads_the_files(page: Page, tmp_path: Path, language: str, model: str) -> None:
    page.get_by_label("Model").select_option(model)
    page.get_by_label("References" if model == "told" else "First frame", exact=True).set_input_files(image("red"))
    choose(page, "Generate")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Pictures" if model == "told" else "Videos").fill("1")
    page.get_by_role("button", name="As code").click()
    (tmp_path / "red.png").write_bytes(image("red")["buffer"])
    code = shown(page, language)
    if language == "curl":
        if shutil.which("curl") is None:
            pytest.skip("no curl on the PATH")
        job = json.loads(run(["bash", "-c", code], tmp_path))
        assert (job["status"], job["request"]["prompt"], roles(job)) == (
            "completed", PROMPT, ["reference" if model == "told" else "first_frame"]
        )  # fmt: skip
        return
    if importlib.util.find_spec(language.removeprefix("Python, ")) is None:
        pytest.skip(f"{language.removeprefix('Python, ')} is not installed")
    run([sys.executable, "-c", code], tmp_path)
    suffix = "png" if model == "told" else "mp4"
    assert {path.name for path in tmp_path.iterdir()} == {"red.png", f"0.{suffix}"}
