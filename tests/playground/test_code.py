"""The request as code does what the page would have done."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.limits import HANG_S
from tests.playground.support import ask, choose, told

pytestmark = pytest.mark.slow  # starts other languages' programs

PROMPT = """it's "a shape", $HOME \\n `é` ✓"""


@pytest.fixture
def code(page: Page) -> Page:
    page.get_by_role("button", name="As code").click()
    choose(page, "Generate")
    for label, text in {"Prompt": PROMPT, "Steps": "1", "Pictures": "2", "scale": "3"}.items():
        page.get_by_label(label, exact=True).fill(text)
    return page


def shown(page: Page, language: str) -> str:
    choose(page, language)
    return page.get_by_role("region", name="Code to copy").inner_text()


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_as_curl(code: Page, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    job = json.loads(run(["bash", "-c", shown(code, "curl")], tmp_path))
    assert (job["status"], job["request"]["prompt"], job["request"]["n"]) == ("completed", PROMPT, 2)
    assert (job["nag"]["applied"], job["nag"]["scale"]) == (True, 3)


@pytest.mark.parametrize("package", ["httpx", "openai"])
def test_as_python(code: Page, tmp_path: Path, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    run([sys.executable, "-c", shown(code, f"Python, {package}")], tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0.png", "1.png"]
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_as_python_for_a_video(page: Page, tmp_path: Path) -> None:
    if importlib.util.find_spec("openai") is None:
        pytest.skip("openai is not installed")
    page.get_by_role("button", name="As code").click()
    page.get_by_label("Model").select_option("tiny-wan")
    choose(page, "Generate")
    page.get_by_label("Prompt", exact=True).fill("a shape")
    run([sys.executable, "-c", shown(page, "Python, openai")], tmp_path)
    assert b"ftyp" in (tmp_path / "0.mp4").read_bytes()[:16]


def test_as_json_it_is_what_is_sent(code: Page) -> None:
    text = shown(code, "JSON")
    with code.expect_request("**/v1/jobs") as sent:
        ask(code, "Generate")
    assert sent.value.post_data_json == json.loads(text)
    told(code, "Done: 2 pictures")
