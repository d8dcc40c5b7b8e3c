"""Sends each input file of the table in docs/server/inputs.md to the API: what the worker and the caller get."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.artifacts import Artifacts
from app.jobs import Generation
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.outputs.video import decode_frames
from tests.api.input_files import CASES, Case, table
from tests.api.support import serving
from tests.api.test_inputs import data_url
from tests.catalogs import CATALOG

ENTRIES = (
    CATALOG
    + """
[models.changing]
extends = "tiny-wan"
width = { default = 64, min = 32, max = 64, multiple = 16 }
height = { default = 32, min = 32, max = 64, multiple = 16 }
inputs = { video = {} }
[models.told]
extends = "shapes-flux"
inputs = { references = {} }
"""
)
DOCS = Path(__file__).parents[2] / "docs/server/inputs.md"


@pytest.fixture
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    file = tmp_path / "models.toml"
    file.write_text(ENTRIES)
    async with serving(settings.model_copy(update={"catalog": file})) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_file_is_read_or_refused_as_the_table_says(
    case: Case, api: httpx.AsyncClient, queue: Queue, settings: Settings
) -> None:
    field = "video" if case.is_video else "references.0"
    file = data_url(case.make(), "")
    fields = {"model": "changing", "video": file} if case.is_video else {"model": "told", "references": [file]}
    answer = await api.post("/v1/jobs", json={"prompt": "make it blue", **fields})
    if case.colors is None:
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["message"]) == (400, field, f"{field}: {case.says}")
        return
    assert answer.status_code == 202, answer.text
    warnings = [warning for warning in answer.json()["warnings"] if warning.startswith(f"{field}:")]
    assert warnings == ([f"{field}: {case.says}"] if case.says else [])
    job = await queue.get(answer.json()["id"])
    assert job is not None
    artifacts = Artifacts.open(settings)
    files = {file.name: await artifacts.read(file.name) for file in job.request.inputs}
    for image in _images(case, job.request, files):
        width, height = image.size
        places = [(width // 2, height // 8), (width // 2, height * 7 // 8)]
        places = places if case.is_turned else [(width // 8, height // 2), (width * 7 // 8, height // 2)]
        assert [_near(image.getpixel(place), color) for place, color in zip(places, case.colors, strict=True)] == [
            True
        ] * 2


def _images(case: Case, request: Generation, files: Mapping[str, bytes]) -> list[Image.Image]:
    """What the pipeline is called with."""
    if not case.is_video:
        return [Image.open(io.BytesIO(data)) for data in files.values()]
    (data,) = files.values()
    assert request.num_frames is not None
    return decode_frames(io.BytesIO(data), request.num_frames, (request.width, request.height))


def _near(color: object, expected: tuple[int, ...]) -> bool:
    assert isinstance(color, tuple)
    return all(abs(value - wanted) <= 12 for value, wanted in zip(color, expected, strict=True))


def test_the_table_is_what_is_tested() -> None:
    assert len(CASES) >= 40
    assert f"<!-- files -->\n\n{table()}\n\n<!-- end -->" in DOCS.read_text()
