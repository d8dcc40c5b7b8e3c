"""Forms: what is a file and what is text, and the ways to write nested fields."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.jobs import Generation, InputRole
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving
from tests.catalogs import CATALOG
from tests.pictures import png

EDITS, VIDEOS, FILES = "/v1/images/edits", "/v1/videos", "/v1/files"
GRAY = png(Image.new("RGB", (64, 64), "gray"))
DATA_URL = f"data:image/png;base64,{base64.b64encode(GRAY).decode()}"
FILE = ("image", ("a.png", GRAY, "image/png"))


@pytest.fixture
async def videos(settings: Settings, tmp_path: Path) -> Any:
    file = tmp_path / "models.toml"
    file.write_text(CATALOG + "inputs = { first_frame = {}, references = { max = 3 } }\n")
    async with serving(settings.model_copy(update={"catalog": file})) as client:
        yield client


async def edited(api: httpx.AsyncClient, worker: FakeWorker, *parts: tuple[str, Any]) -> Generation:
    """What a form, whose prompt is one of its parts, asks for."""
    answer = await api.post(EDITS, files=list(parts))
    assert answer.status_code == 200, answer.text
    return worker.seen[-1]


async def refusal(api: httpx.AsyncClient, *parts: tuple[str, Any]) -> tuple[int, str, str]:
    answer = await api.post(EDITS, files=list(parts))
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "text/markdown; charset=utf-8", "application/octet-stream"])
async def test_a_file_of_text_in_a_field_for_text_is_read(
    api: httpx.AsyncClient, worker: FakeWorker, kind: str
) -> None:
    """As `curl -F prompt=@prompt.txt -F seed=@seed.txt` sends them."""
    parts = ("prompt", ("prompt.txt", "ein größerer Kreis\n".encode(), kind)), ("seed", ("seed.txt", b"7\n", kind))
    asked = await edited(api, worker, *parts, FILE)
    assert (asked.prompt, asked.seed) == ("ein größerer Kreis", 7)


@pytest.mark.parametrize(
    ("data", "kind"), [(GRAY, "image/png"), (b"a\0b", "text/plain"), (b"\xff\xfe", "application/octet-stream")]
)
async def test_any_other_file_there_is_refused_by_the_fields_name(
    api: httpx.AsyncClient, data: bytes, kind: str
) -> None:
    status, param, message = await refusal(api, ("prompt", ("prompt.txt", data, kind)), FILE)
    assert (status, param) == (422, "prompt")
    assert "must be text" in message
    assert "prompt.txt" not in message


async def test_a_file_in_an_unknown_field_is_an_unknown_field(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    parts = ("prompt", (None, "a shape")), FILE, ("attachment", ("b.png", GRAY, "image/png"))
    assert (await refusal(api, *parts))[1:] == ("attachment", "attachment: unknown field")
    await edited(api, worker, *parts, ("model", (None, "gpt-image-1")))
    answer = await api.post(EDITS, files=[*parts, ("strict", (None, "false"))])
    assert answer.json()["warnings"][0] == "attachment was left out: unknown field"


async def test_a_part_without_a_filename_is_a_file_by_its_media_type(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    for kind in ("image/png", "application/octet-stream"):
        asked = await edited(api, worker, ("prompt", (None, "a shape", "text/plain")), ("image", (None, GRAY, kind)))
        assert [file.role for file in asked.inputs] == [InputRole.IMAGE]


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "image.0"])
async def test_a_data_url_is_a_file(api: httpx.AsyncClient, worker: FakeWorker, name: str) -> None:
    asked = await edited(api, worker, ("prompt", (None, "a shape")), (name, (None, DATA_URL)))
    assert [file.role for file in asked.inputs] == [InputRole.IMAGE]


async def test_a_large_data_url_is_one(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    """Larger than parts of text commonly may be."""
    file = io.BytesIO()
    Image.effect_noise((1200, 1200), 50).convert("RGB").save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    assert len(url) > 2_000_000
    await edited(api, worker, ("prompt", (None, "a shape")), ("image", (None, url)))


async def test_a_data_url_that_is_broken_is_refused(api: httpx.AsyncClient) -> None:
    status, param, _ = await refusal(api, ("prompt", (None, "a")), ("image", (None, "data:image/png;base64,!")))
    assert (status, param) == (400, "image")


NESTED: list[list[tuple[str, str]]] = [
    [("nag", '{"scale": 7, "negative_prompt": "red"}')],
    [("nag[scale]", "7"), ("nag[negative_prompt]", "red")],
    [("nag.scale", "7"), ("nag.negative_prompt", "red")],
    [("nag[scale]", "7.0"), ("nag.negative_prompt", "red")],
    [("nag_scale", "7"), ("nag_negative_prompt", "red")],
]


@pytest.mark.parametrize("fields", NESTED)
async def test_nested_options_may_be_written_in_each_way(
    api: httpx.AsyncClient, worker: FakeWorker, fields: list[tuple[str, str]]
) -> None:
    parts = [(name, (None, text)) for name, text in [("prompt", "a shape"), *fields]]
    asked = await edited(api, worker, *parts, FILE)
    assert asked.nag is not None
    assert (asked.nag.scale, asked.nag.negative_prompt) == (7.0, "red")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("nag", '{"scale": 7')], "nag"),
        ([("nag", '{"scale": 7, "scale": 8}')], "nag"),
        ([("nag", '{"sacle": 7}')], "nag.sacle"),
        ([("nag", "[7]")], "nag"),
        ([("nag.sacle", "7")], "nag.sacle"),
        ([("nag[scale]", "7"), ("nag.scale", "7")], "nag[scale]"),
        ([("nag", '{"scale": 7}'), ("nag.scale", "7")], "nag[scale]"),
        ([("none.scale", "7")], "none.scale"),
        ([("nag", "[" * 5000)], "nag"),
    ],
)
async def test_a_nested_option_that_is_none(api: httpx.AsyncClient, fields: list[tuple[str, str]], param: str) -> None:
    parts = [(name, (None, text)) for name, text in [("prompt", "a shape"), *fields]]
    status, found, _ = await refusal(api, *parts, FILE)
    assert (status, found) == (422, param)


async def test_an_empty_field_is_absent(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    empty = ("seed", "size", "n", "nag[scale]", "model", "strict", "response_format", "user", "mask", "steps")
    parts = [(name, (None, "")) for name in empty]
    asked = await edited(api, worker, ("prompt", (None, "a shape")), FILE, *parts, ("mask", ("", b"")))
    assert (asked.n, asked.nag, asked.strict) == (1, None, True)
    assert (await refusal(api, ("prompt", (None, "")), FILE))[:2] == (422, "prompt")


async def test_files_of_one_name_are_several(videos: httpx.AsyncClient, queue: Queue) -> None:
    for names in (("references",), ("references", "references"), ("references[]", "references[]"),
                  ("references[0]", "references[1]", "references[2]")):  # fmt: skip
        parts = [(name, ("a.png", GRAY, "image/png")) for name in names]
        answer = await videos.post(VIDEOS, files=[("prompt", (None, "a")), *parts])
        assert answer.status_code == 200, answer.text
        job = await queue.get(answer.json()["id"])
        assert job is not None
        assert [file.role for file in job.request.inputs] == [InputRole.REFERENCE] * len(names)


@pytest.mark.parametrize("text", [DATA_URL, f'{{"image_url": "{DATA_URL}"}}'])
async def test_a_reference_may_be_json(videos: httpx.AsyncClient, queue: Queue, text: str) -> None:
    answer = await videos.post(VIDEOS, files=[("prompt", (None, "a")), ("input_reference", (None, text))])
    assert answer.status_code == 200, answer.text
    job = await queue.get(answer.json()["id"])
    assert job is not None
    assert [file.role for file in job.request.inputs] == [InputRole.FIRST_FRAME]


@pytest.mark.parametrize(
    "fields",
    [
        [("expires_after", '{"anchor": "created_at", "seconds": 60}')],
        [("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "60")],
        [("expires_after.anchor", "created_at"), ("expires_after.seconds", "60")],
    ],
)
async def test_an_upload_takes_them_as_well(api: httpx.AsyncClient, fields: list[tuple[str, str]]) -> None:
    parts = [("file", ("a.png", GRAY, "image/png")), ("purpose", ("p.txt", b"vision\n", "text/plain"))]
    answer = await api.post(FILES, files=[*parts, *((name, (None, text)) for name, text in fields)])
    stored = answer.json()
    assert answer.status_code == 200, answer.text
    assert (stored["expires_at"] - stored["created_at"], stored["purpose"]) == (60, "vision")
