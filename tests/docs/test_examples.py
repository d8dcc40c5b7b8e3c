"""Runs every program of examples/, and reads from the pixels what it has made."""

from __future__ import annotations

import io
import json
import re
import runpy
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.docs.conftest import WEBHOOK_SECRET
from training.shapes.judge import Reading, read

pytestmark = pytest.mark.slow  # starts a service and programs

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARY = ("guide_pipeline", "modular_pipeline", "register_family", "rows", "threads")


def reading(path: str) -> Reading:
    """Returns what an image of the working folder shows."""
    with Image.open(path) as image:
        (found,) = read(np.asarray(image.convert("RGB"))[None])
    return found


def check_guide_pipeline(printed: str) -> None:
    assert reading("guided.png").color not in (None, "red")
    assert Path("plain.png").read_bytes() != Path("guided.png").read_bytes()
    assert printed.startswith("4 denoiser calls were guided")


def check_rows(printed: str) -> None:
    assert reading("row-0.png").color not in (None, "red")
    assert reading("row-1.png").shape != "circle"
    plain = [Path(f"row-{row}.png").read_bytes() for row in range(3)]
    assert len(set(plain)) == 3


def check_threads(printed: str) -> None:
    assert reading("thread-0.png").color not in (None, "red")
    assert reading("thread-1.png").shape != "circle"


def check_modular_pipeline(printed: str) -> None:
    assert reading("modular.png").color not in (None, "red")


def check_register_family(printed: str) -> None:
    assert reading("posters.png").color not in (None, "red")
    assert "scale=3.0, tau=2.0" in printed


def check_negative_prompt(printed: str) -> None:
    assert reading("shape.png").color not in (None, "red")
    assert printed.startswith("completed")
    assert "'scale': 7" in printed


def check_edit_image(printed: str) -> None:
    before, after = reading("before.png"), reading("after.png")
    assert (before.color, before.shape) == ("red", "circle")
    assert (after.color, after.shape) == ("blue", "circle")


def check_make_video(printed: str) -> None:
    with av.open("video.mp4") as video:
        assert len(list(video.decode(video=0))) == 17
    with Image.open("thumbnail.jpg") as image:
        assert image.size == (64, 64)


def check_openai_sdk(printed: str) -> None:
    assert reading("sdk.png").color not in (None, "red")


def check_progress_events(printed: str) -> None:
    names = [line.split()[0] for line in printed.splitlines()]
    assert names[0] == "queued"
    assert names[-1] == "completed"
    assert names.count("preview") == len(list(Path().glob("preview-*.jpg"))) == 2
    assert reading("final.png").color not in (None, "red")


def check_webhook_receiver(printed: str) -> None:
    assert printed == "job.completed True\n"
    assert json.loads(Path("webhook.json").read_text())["data"]["status"] == "completed"


def check_lora(printed: str) -> None:
    assert "'dotted', 'underlined'" in printed
    with Image.open("lora.png") as image:
        used = json.loads(image.info["parameters"])["loras"]
    assert [lora["id"] for lora in used] == ["dotted", "underlined"]
    assert used[0]["scale"] == 0.8


def check_retry(printed: str) -> None:
    assert printed == "one job: True\n"


def check_automatic1111(printed: str) -> None:
    assert reading("web-ui.png").color not in (None, "red")
    assert "Negative prompt: a red shape" in printed


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}


@pytest.mark.usefixtures("own_families")
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [] if name in LIBRARY else [request.getfixturevalue("embedded_service")]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("NAG_WEBHOOK_SECRET", WEBHOOK_SECRET)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    CHECKS[name](sys.stdout.getvalue())


def test_every_program_is_checked_and_listed() -> None:
    programs = {path.stem for path in EXAMPLES.glob("*.py")}
    assert programs == set(CHECKS)
    assert len(programs) >= 10
    assert set(re.findall(r"\[(\w+)\.py\]", (EXAMPLES / "README.md").read_text())) == programs
