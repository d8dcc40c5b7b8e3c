"""`nag-server generate` with files, against an API whose worker denoises nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.cli import main
from app.jobs import InputRole
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import serving, working
from tests.catalogs import CATALOG
from tests.pictures import png

ENTRIES = (
    CATALOG
    + """
[models.film]
extends = "tiny-wan"
inputs = { first_frame = { required = true }, last_frame = {} }
[models.told]
extends = "shapes-flux"
inputs = { references = { max = 2 } }
[models.both]
extends = "shapes-flux"
inputs = { references = { max = 4 }, image = {}, mask = {} }
"""
)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog, in the folder of the files that commands name."""
    monkeypatch.chdir(tmp_path)
    for color in ("red", "blue"):
        Path(f"{color}.png").write_bytes(png(Image.new("RGB", (80, 60), color)))
    Path("clear.png").write_bytes(png(Image.new("RGBA", (80, 60))))
    Path("cut.png").write_bytes(Path("red.png").read_bytes()[:60])
    Path("notes.txt").write_text("buy milk")
    (tmp_path / "models.toml").write_text(ENTRIES)
    return tmp_path / "models.toml"


@pytest.fixture
async def api(settings: Settings, catalog: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"catalog": catalog})) as client:
        yield client


async def generate(api: httpx.AsyncClient, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["generate", "make it blue", *arguments, "--url", str(api.base_url)])


RED = ["--image", "red.png"]


@pytest.mark.parametrize(
    ("arguments", "model", "roles"),
    [
        ([*RED, "--model", "film"], "film", ["first_frame"]),
        ([*RED, "--model", "film", "--input", "last_frame=blue.png"], "film", ["first_frame", "last_frame"]),
        (["--input", "first_frame=red.png"], "film", ["first_frame"]),
        (RED, "shapes-flux", ["image"]),  # the first that takes an image, since the default takes none
        ([*RED, "--image", "blue.png"], "told", ["reference", "reference"]),
        ([*RED, "--model", "both"], "both", ["reference"]),
        ([*RED, "--model", "both", "--input", "reference=blue.png"], "both", ["reference", "reference"]),
        ([*RED, "--model", "both", "--strength", "0.5"], "both", ["image"]),
        ([*RED, "--model", "both", "--mask", "clear.png"], "both", ["image", "mask"]),
        ([*RED, "--model", "shapes-flux"], "shapes-flux", ["image"]),
    ],
)
async def test_files_get_the_roles_of_the_model(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, arguments: list[str], model: str, roles: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with working(queue, settings, model) as worker:
        assert await generate(api, "--negative", "a red shape", *arguments) == 0
    (request,) = worker.seen
    assert [file.role for file in request.inputs] == [InputRole(role) for role in roles]
    assert request.strength == (0.5 if "--strength" in arguments else 0.75 if "image" in roles else None)
    assert f"input    red.png as {roles[0].replace('_', ' ')}\n" in capsys.readouterr().out
    assert (await api.get("/v1/files")).json()["data"] == []  # the uploads are removed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "gone.png"], "gone.png: No such file or directory"),
        (["--image", "."], ".: Is a directory"),
        (["--image", "notes.txt"], "notes.txt: must be an image or a video, got an unknown kind"),
        (["--image", "cut.png", "--model", "both"], "cut.png: references.0: the PNG file is broken or incomplete"),
        ([*RED, "--model", "tiny-wan"], "red.png: image: model tiny-wan takes none; it starts from text alone"),
        (["--mask", "clear.png", "--model", "both"], "clear.png: mask: goes with image, which is missing"),
        ([*RED, *RED, *RED, "--model", "told"], "references: model told takes at most 2, got 3"),
        ([*RED, "--model", "film", "--input", "first_frame=blue.png"], "blue.png: a request takes one first_frame"),
        ([*RED, "--model", "gone"], "model: no model 'gone'"),
    ],
)
async def test_a_file_that_cannot_be_taken_is_named(
    api: httpx.AsyncClient, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await generate(api, *arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"nag-server: {message}")
    assert (await api.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize("text", ["cat=red.png", "image", "image="])
def test_an_input_is_a_role_and_a_file(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "a shape", "--input", text])
    assert "must be ROLE=FILE with a role of image, mask, reference" in capsys.readouterr().err
