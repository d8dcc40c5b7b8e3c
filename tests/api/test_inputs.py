"""Requests that start from files: the ways in, what each model takes, and whose the files are."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.artifacts import Artifacts, artifact_name
from app.jobs import AppliedGuidance, Artifact, Generation, InputRole, Result
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.outputs.video import encode_mp4
from tests.api.keyed import by, keyed
from tests.api.support import TIMINGS, serving
from tests.catalogs import CATALOG
from tests.claiming import claim
from tests.pictures import png
from tests.queue.clock import pass_time

ENTRIES = (
    CATALOG
    + """
[models.film]
extends = "tiny-wan"
inputs = { first_frame = { required = true }, last_frame = {} }
[models.changing]
extends = "tiny-wan"
inputs = { video = {} }
[models.told]
extends = "shapes-flux"
inputs = { references = { max = 2, required = true } }
[models.both]
extends = "shapes-flux"
inputs = { references = { max = 4 }, image = {}, mask = {} }
[models.masked]
extends = "shapes-flux"
inputs = { references = { max = 2 }, image = {}, mask = { required = true } }
[aliases.maker]
model = "changing"
"""
)
RED, BLUE = (png(Image.new("RGB", (80, 60), color)) for color in ("red", "blue"))
CLEAR = png(Image.new("RGBA", (80, 60), (0, 0, 0, 0)))


AFTER = "expires_after[seconds]"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def catalogued(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "models.toml"
    file.write_text(ENTRIES)
    return settings.model_copy(update={"catalog": file})


@pytest.fixture
async def api(catalogued: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(catalogued) as client:
        yield client


async def queued(api: httpx.AsyncClient, queue: Queue, **fields: Any) -> Generation:
    """The request of the job that is queued for these fields of POST /v1/jobs."""
    answer = await api.post("/v1/jobs", json={"prompt": "make it blue", **fields})
    assert answer.status_code == 202, answer.text
    job = await queue.get(answer.json()["id"])
    assert job is not None
    return job.request


async def opened(settings: Settings, request: Generation) -> list[Image.Image]:
    artifacts = Artifacts.open(settings)
    return [Image.open(io.BytesIO(await artifacts.read(file.name))) for file in request.inputs]


async def refusal(api: httpx.AsyncClient, **fields: Any) -> tuple[int, str, str, str]:
    answer = await api.post("/v1/jobs", json={"prompt": "a shape", **fields})
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"], error["message"]


async def test_files_of_each_role_reach_the_job(api: httpx.AsyncClient, queue: Queue, catalogued: Settings) -> None:
    request = await queued(api, queue, model="told", references=[data_url(RED), data_url(BLUE)])
    assert (request.task, request.strength) == ("edit", None)
    first, second = await opened(catalogued, request)
    assert (first.getpixel((5, 5)), second.getpixel((5, 5))) == ((255, 0, 0), (0, 0, 255))

    request = await queued(api, queue, model="film", first_frame=data_url(RED), last_frame=data_url(BLUE))
    assert [file.role for file in request.inputs] == [InputRole.FIRST_FRAME, InputRole.LAST_FRAME]
    assert (request.task, request.width, request.height) == ("image_to_video", 64, 48)
    assert {image.size for image in await opened(catalogued, request)} == {(64, 48)}

    answer = await api.post("/v1/jobs", json={"prompt": "a", "model": "told", "references": [data_url(CLEAR)]})
    assert answer.json()["warnings"] == ["references.0: transparent pixels were replaced by gray"]

    request = await queued(api, queue, model="both", image=data_url(RED))
    assert (request.task, request.strength, request.steps) == ("img2img", 0.75, 3)
    request = await queued(api, queue, model="both", image=data_url(RED), mask=data_url(CLEAR), strength=1.0)
    assert (request.task, [file.role for file in request.inputs]) == ("inpaint", [InputRole.IMAGE, InputRole.MASK])


async def test_a_model_is_found_by_what_the_request_has(api: httpx.AsyncClient, queue: Queue) -> None:
    assert (await queued(api, queue, first_frame=data_url(RED))).model == "film"
    assert (await queued(api, queue, references=[data_url(RED)])).model == "told"
    assert (await queued(api, queue)).model == "tiny-wan"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param", "said"),
    [
        ({"model": "film"}, 400, "invalid_parameter", "first_frame", "model film needs one"),
        ({"model": "film", "last_frame": "R"}, 400, "invalid_parameter", "first_frame", "needs one"),
        ({"model": "told"}, 400, "invalid_parameter", "references", "model told needs some"),
        ({"model": "told", "references": ["R", "R", "R"]}, 400, "invalid_parameter", "references", "at most 2, got 3"),
        ({"model": "told", "first_frame": "R"}, 400, "unsupported_parameter", "first_frame", "text or references"),
        ({"model": "tiny-wan", "first_frame": "R"}, 400, "unsupported_parameter", "first_frame", "from text alone"),
        ({"model": "masked", "image": "R"}, 400, "invalid_parameter", "mask", "needs one"),
        ({"model": "both", "mask": "R"}, 400, "invalid_parameter", "mask", "goes with image"),
        ({"model": "both", "references": ["R"], "strength": 0.5}, 400, "unsupported_parameter", "strength", "no image"),
        ({"model": "both", "references": ["R"], "image": "R"}, 400, "invalid_parameter", "references", "with image"),
        ({"model": "both", "image": "data:image/png,R"}, 400, "invalid_parameter", "image", "base64"),
        ({"model": "both", "image": "data:;base64,%"}, 400, "invalid_parameter", "image", "not valid base64"),
        ({"model": "both", "references": ["data:x"]}, 400, "invalid_parameter", "references.0", "a data URL must be"),
        ({"model": "both", "image": "cat.png"}, 400, "invalid_parameter", "image", "the id of an uploaded file"),
        ({"model": "both", "image": "upload:0"}, 400, "invalid_parameter", "image", "the id of an uploaded file"),
        ({"model": "both", "image": "file-0"}, 404, "file_not_found", "image", "no file"),
        ({"model": "both", "image": "https://example.org/a.png"}, 400, "input_url_refused", "image", "none is allowed"),
        ({"model": "both", "image": 5}, 422, "invalid_request", "image", "string"),
    ],
)
async def test_what_is_refused(
    api: httpx.AsyncClient, queue: Queue, catalogued: Settings, fields: dict[str, Any], status: int, code: str,
    param: str, said: str,
) -> None:  # fmt: skip
    def with_file(value: Any) -> Any:
        return (
            [with_file(part) for part in value] if isinstance(value, list) else data_url(RED) if value == "R" else value
        )

    found = await refusal(api, **{name: with_file(value) for name, value in fields.items()})
    assert found[:3] == (status, code, param), found
    assert said in found[3], found
    folder = catalogued.data_folder / "artifacts"
    assert not folder.exists() or not list(folder.iterdir())
    assert [await queue.depth(model) for model in ("film", "told", "both")] == [0, 0, 0]


async def test_a_lenient_request_goes_without_a_file_that_its_model_does_not_take(
    api: httpx.AsyncClient, queue: Queue
) -> None:
    answer = await api.post(
        "/v1/jobs", json={"prompt": "a", "model": "tiny-wan", "first_frame": data_url(RED), "strict": False}
    )
    assert answer.json()["warnings"] == [
        "first_frame was left out: model tiny-wan takes none; it starts from text alone"
    ]


async def test_a_prompt_is_never_taken_for_a_file(api: httpx.AsyncClient, queue: Queue) -> None:
    text = data_url(RED)
    assert (await queued(api, queue, model="both", prompt=text, image=text)).prompt == text


async def test_the_same_key_with_another_file_is_a_conflict(api: httpx.AsyncClient) -> None:
    async def sent(data: bytes) -> httpx.Response:
        body = {"prompt": "a", "model": "both", "image": data_url(data), "seed": 1}
        return await api.post("/v1/jobs", json=body, headers={"idempotency-key": "one"})

    first, again, other = await sent(RED), await sent(RED), await sent(BLUE)
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 409


async def test_images_of_an_edit_are_what_the_request_makes_them(api: httpx.AsyncClient, queue: Queue) -> None:
    """By model, number of images, mask and strength, on OpenAI's route; held answers are timed out by the prompt."""
    await queue.registry.announce("nobody", ["both"], 60)

    async def tasks(model: str, *images: bytes, mask: bytes | None = None, **fields: str) -> str:
        files = [("image[]" if len(images) > 1 else "image", ("a.png", data)) for data in images]
        files += [] if mask is None else [("mask", ("m.png", mask))]
        data = {"prompt": "a", "model": model, **fields}
        asking = asyncio.create_task(api.post("/v1/images/edits", files=files, data=data))
        while not (jobs := (await api.get("/v1/jobs", params={"limit": 1, "status": "queued"})).json()["data"]):
            if asking.done():
                return str(asking.result().json()["error"]["message"])
            await asyncio.sleep(0.01)
        job = await queue.get(jobs[0]["id"])
        assert job is not None
        await queue.cancel(job.id)
        await asking
        return job.request.task

    assert await tasks("told", RED) == await tasks("told", RED, BLUE) == "edit"
    assert await tasks("both", RED) == "edit"
    assert await tasks("both", RED, strength="0.5") == "img2img"
    assert await tasks("both", RED, mask=CLEAR) == "inpaint"
    assert await tasks("both", CLEAR) == "inpaint"
    assert await tasks("both", RED, BLUE, RED, BLUE) == "edit"
    assert await tasks("told", CLEAR) == "edit"
    assert await tasks("masked", RED) == "edit"
    assert "at most 2; both would" in await tasks("told", RED, BLUE, RED)
    assert "takes no mask: leave it out" in await tasks("told", RED, mask=CLEAR)
    assert "takes no mask with several images" in await tasks("both", RED, BLUE, mask=CLEAR)
    assert await tasks("told", RED, input_fidelity="high") == "edit"
    assert await tasks("told", RED, input_fidelity="low") == "edit"
    assert "input_fidelity: only low or high" in await tasks("told", RED, input_fidelity="most")


async def test_openai_json_names_its_files(api: httpx.AsyncClient, queue: Queue) -> None:
    video = await api.post(
        "/v1/videos", json={"prompt": "a", "model": "film", "input_reference": {"image_url": data_url(RED)}}
    )
    job = await queue.get(video.json()["id"])
    assert job is not None
    assert [file.role for file in job.request.inputs] == [InputRole.FIRST_FRAME]
    files: dict[str, Any] = {"prompt": (None, "a"), "model": (None, "film"), "input_reference": ("a.png", RED)}
    assert (await api.post("/v1/videos", files=files)).status_code == 200
    twice = {"prompt": "a", "input_reference": data_url(RED), "first_frame": data_url(RED)}
    assert (await api.post("/v1/videos", json=twice)).json()["error"]["param"] == "input_reference"


async def test_an_uploaded_file_is_named_by_its_id_until_it_is_gone(
    api: httpx.AsyncClient, queue: Queue, catalogued: Settings
) -> None:
    fields = {"purpose": "vision", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = (await api.post("/v1/files", files={"file": ("red.png", RED)}, data=fields)).json()
    assert (made["object"], made["bytes"], made["filename"], made["purpose"]) == ("file", len(RED), "red.png", "vision")
    assert made["expires_at"] == made["created_at"] + 3600
    assert (await api.get(f"/v1/files/{made['id']}")).json() == made
    assert (await api.get("/v1/files")).json()["data"] == [made]
    content = await api.get(f"/v1/files/{made['id']}/content", headers={"range": "bytes=0-7"})
    assert (content.status_code, content.content) == (206, RED[:8])
    request = await queued(api, queue, model="both", image=made["id"])
    assert (await api.delete(f"/v1/files/{made['id']}")).json()["deleted"]
    assert [image.size for image in await opened(catalogued, request)] == [(64, 64)]  # a copy of the job's own
    for answer in (
        await api.get(f"/v1/files/{made['id']}"),
        await api.delete(f"/v1/files/{made['id']}"),
        await api.post("/v1/jobs", json={"prompt": "a", "model": "both", "image": made["id"]}),
        await api.post("/v1/images/edits", json={"prompt": "a", "model": "both", "image": made["id"]}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
    assert (await api.get("/v1/files")).json()["data"] == []


async def test_an_uploaded_file_expires(api: httpx.AsyncClient, queue: Queue) -> None:
    fields = {"expires_after[seconds]": "60"}
    made = (await api.post("/v1/files", files={"file": ("red.png", RED)}, data=fields)).json()
    await pass_time(queue, 60)
    answer = await api.get(f"/v1/files/{made['id']}")
    assert answer.status_code == 404
    assert (await api.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("files", "fields", "status", "code", "param"),
    [
        ({"file": ("a.pdf", b"%PDF-1.7")}, {}, 400, "invalid_parameter", "file"),
        ({"file": ("a.png", RED + b"\0" * 20_000)}, {}, 400, "invalid_parameter", "file"),
        ({"file": (None, "a")}, {}, 400, "invalid_parameter", "file"),
        ({"file": ("a.png", RED)}, {AFTER: "soon"}, 422, "invalid_request", "expires_after.seconds"),
        ({"file": ("a.png", RED)}, {AFTER: "9999999"}, 400, "invalid_parameter", "expires_after.seconds"),
        ({"file": ("a.png", RED)}, {"nothing": "1"}, 422, "invalid_request", "nothing"),
        ({"file": ("a.png", RED + b"\0" * 90_000)}, {}, 413, "body_too_large", None),
    ],
)  # fmt: skip
async def test_an_upload_that_is_refused(
    catalogued: Settings, files: Any, fields: dict[str, str], status: int, code: str, param: str | None
) -> None:
    small = {"input_max_bytes": 10_000, "video_max_bytes": 30_000, "body_max_bytes": 10_000}
    async with serving(catalogued.model_copy(update=small)) as api:
        answer = await api.post("/v1/files", files=files, data=fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
        assert (await api.post("/v1/files", json={})).status_code == 415
        assert (await api.get("/v1/files")).json()["data"] == []
    folder = catalogued.data_folder / "artifacts"
    assert not folder.exists() or not list(folder.iterdir())


async def test_files_of_a_tenant_are_bounded_and_nobody_elses(catalogued: Settings) -> None:
    async with serving(keyed(catalogued).model_copy(update={"files_max_bytes": 2 * len(RED)})) as api:
        made = [
            (await api.post("/v1/files", files={"file": ("a.png", RED)}, headers=by("alice"))).json() for _ in range(2)
        ]
        full = await api.post("/v1/files", files={"file": ("a.png", RED)}, headers=by("alice"))
        assert (full.status_code, full.json()["error"]["code"]) == (429, "files_full")
        assert (await api.post("/v1/files", files={"file": ("b.png", RED)}, headers=by("bob"))).status_code == 200
        path = f"/v1/files/{made[0]['id']}"
        for answer in (
            await api.get(path, headers=by("bob")),
            await api.get(f"{path}/content", headers=by("bob")),
            await api.delete(path, headers=by("bob")),
            await api.post(
                "/v1/jobs", json={"prompt": "a", "model": "both", "image": made[0]["id"]}, headers=by("bob")
            ),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
        assert len((await api.get("/v1/files", headers=by("alice-reads"))).json()["data"]) == 2


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"/red.png" in head:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(RED) + RED)
    elif b"/large" in head:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"\0" * 200_000)
    else:
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /red.png\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_a_url_is_fetched_from_an_allowed_host_alone(catalogued: Settings, queue: Queue) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    allowed = {"input_url_hosts": ("127.0.0.1", ".example.org"), "input_max_bytes": 100_000}
    network = {"webhook_allow": (IPv4Network("127.0.0.0/8"),)}

    async def refused(api: httpx.AsyncClient, url: str) -> str:
        found = await refusal(api, model="both", image=url)
        assert found[:3] == (400, "input_url_refused", "image"), found
        return found[3]

    async with server:
        async with serving(catalogued.model_copy(update=allowed | network)) as api:
            url = f"http://127.0.0.1:{port}"
            request = await queued(api, queue, model="both", image=f"{url}/red.png")
            assert (await opened(catalogued, request))[0].getpixel((5, 5)) == (255, 0, 0)
            assert "status 302; redirects are not followed" in await refused(api, f"{url}/other")
            assert "more than 100000 bytes" in await refused(api, f"{url}/large")
            assert "allowed are 127.0.0.1, .example.org" in await refused(api, "http://example.com/a.png")
            assert "could not be fetched" in await refused(api, "http://127.0.0.1:1/a.png")
        async with serving(catalogued.model_copy(update=allowed)) as api:
            assert "private, local or reserved" in await refused(api, f"{url}/red.png")


def film(frames: int = 12) -> bytes:
    with encode_mp4(np.full((frames, 48, 64, 3), 90, np.uint8), 8) as file:
        return file.read()


async def test_a_video_to_change(api: httpx.AsyncClient, queue: Queue, catalogued: Settings) -> None:
    data = film()
    request = await queued(api, queue, model="changing", video=data_url(data, "video/mp4"))
    assert (request.task, request.strength, request.num_frames) == ("video_to_video", 0.75, 9)
    assert (request.width, request.height) == (64, 48)
    [file] = request.inputs
    assert await Artifacts.open(catalogued).read(file.name) == data
    answer = await api.post("/v1/videos", files={"prompt": (None, "a"), "input_reference": ("a.mp4", data)})
    assert (answer.json()["model"], answer.json()["warnings"]) == (
        "changing", ["video: the first 9 of its 12 frames were used"],
    )  # fmt: skip
    for fields, said in (
        ({"num_frames": 17}, "must have at least 17 frames, got 12"),
        ({"video": data_url(data[:200], "video/mp4")}, "broken or incomplete"),
        ({"video": data_url(RED)}, "must be MP4 or QuickTime or WebM or Matroska, got PNG"),
    ):
        found = await refusal(api, **{"model": "changing", "video": data_url(data), **fields})
        assert found[2] == "video"
        assert said in found[3]


async def test_a_remix_starts_from_an_own_finished_video(catalogued: Settings, queue: Queue) -> None:
    artifacts, name = Artifacts.open(catalogued), artifact_name("job_0", 0, "mp4")
    await artifacts.save(name, film())
    async with serving(keyed(catalogued)) as api:

        async def made(asked: str, model: str) -> str:
            body = {"prompt": "a", "model": asked, "num_frames": 9}
            video = (await api.post("/v1/videos", json=body, headers=by("alice"))).json()
            [job] = await claim(queue, "w", model, 1, 1)
            await queue.finish(
                "w", job.id, Result((Artifact(name, "video/mp4", 9, 7),), AppliedGuidance(False), 1, TIMINGS)
            )
            return str(video["id"])

        first, named = await made("changing", "changing"), await made("maker", "changing")
        path = f"/v1/videos/{first}/remix"
        remix = (await api.post(path, json={"prompt": "make it blue"}, headers=by("alice"))).json()
        assert (remix["remixed_from_video_id"], remix["model"], remix["num_frames"]) == (first, "changing", 9)
        job = await queue.get(remix["id"])
        assert job is not None
        assert (job.request.task, job.request.prompt) == ("video_to_video", "make it blue")
        assert (await api.post(path, json={"prompt": "a"}, headers=by("bob"))).status_code == 404
        waiting = await api.post(f"/v1/videos/{remix['id']}/remix", json={"prompt": "a"}, headers=by("alice"))
        assert (waiting.status_code, waiting.json()["error"]["code"]) == (409, "not_ready")
        sent = {"prompt": "a", "video": data_url(film())}
        assert (await api.post(path, json=sent, headers=by("alice"))).json()["error"]["param"] == "video"
        again = (await api.post(f"/v1/videos/{named}/remix", json={"prompt": "b"}, headers=by("alice"))).json()
        assert (again["model"], again["alias_of"]) == ("maker", "changing")
        other = await made("tiny-wan", "tiny-wan")
        error = (await api.post(f"/v1/videos/{other}/remix", json={"prompt": "a"}, headers=by("alice"))).json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", "model")
