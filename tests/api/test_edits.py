"""OpenAI's edits over a real socket: what a picture and a mask become, and what each refusal names."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image

from app.api.inputs.sizes import fitting_size
from app.artifacts import Artifacts, ArtifactsError
from app.catalog import Catalog, Range
from app.jobs import Generation, InputRole
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving
from tests.pictures import png

ROUTE = "/v1/images/edits"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new(mode, size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture


def hole(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Transparent on the right."""
    picture = halves(size, "RGBA")
    picture.putalpha(255)
    picture.paste((9, 9, 9, 0), (size[0] // 2, 0, *size))
    return picture


def written(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


async def edited(api: httpx.AsyncClient, image: bytes, mask: bytes | None = None, **fields: str) -> httpx.Response:
    files = {"image": ("a.png", image)} | ({} if mask is None else {"mask": ("m.png", mask)})
    return await api.post(ROUTE, files=files, data={"prompt": "a shape", "seed": "7", **fields})


def asked(worker: FakeWorker) -> tuple[Generation, dict[InputRole, str]]:
    """The latest request that the worker saw, and the names of its files by their roles."""
    request = worker.seen[-1]
    return request, {file.role: file.name for file in request.inputs}


async def opened(settings: Settings, name: str | None) -> Image.Image:
    assert name is not None
    return Image.open(io.BytesIO(await Artifacts.open(settings).read(name)))


async def test_a_picture_reaches_the_worker_as_it_is_used(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings
) -> None:
    answer = await edited(api, png(halves((200, 100))), strength="0.5", num_inference_steps="8", nag_scale="7")
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "64x64"
    request, names = asked(worker)
    assert (request.task, request.steps, request.strength, list(names)) == ("img2img", 4, 0.5, [InputRole.IMAGE])
    assert request.nag is not None
    assert request.nag.scale == 7
    picture = await opened(settings, names[InputRole.IMAGE])
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert (picture.getpixel((0, 32)), picture.getpixel((63, 32))) == (RED, BLUE)
    job = (await api.get(f"/v1/jobs/{answer.json()['job']}")).json()
    assert job["progress"] == {"step": 4, "steps": 4}
    digest = hashlib.sha256(png(halves((200, 100)))).hexdigest()
    assert job["request"]["inputs"] == [{"role": "image", "name": names[InputRole.IMAGE], "sha256": digest}]
    assert job["request"]["strength"] == 0.5


@pytest.mark.parametrize(
    ("image", "mask", "white"),
    [
        (png(halves()), png(hole()), True),
        (png(hole()), None, True),
        (png(hole()), png(hole().transpose(Image.Transpose.FLIP_LEFT_RIGHT)), False),
        (written(hole(), "WEBP", lossless=True), None, True),
    ],
)
async def test_what_is_transparent_is_made_anew(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings, image: bytes, mask: bytes | None, white: bool
) -> None:
    assert (await edited(api, image, mask)).status_code == 200
    request, names = asked(worker)
    assert request.task == "inpaint"
    found = await opened(settings, names[InputRole.MASK])
    assert (found.mode, found.size) == ("L", (64, 64))
    assert (found.getpixel((63, 0)), found.getpixel((0, 0))) == ((255, 0) if white else (0, 255))


async def test_half_transparent_is_half_regenerated(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings
) -> None:
    soft = hole()
    soft.paste((*RED, 64), (16, 0, 32, 64))
    assert (await edited(api, png(halves()), png(soft))).status_code == 200
    mask = await opened(settings, asked(worker)[1][InputRole.MASK])
    assert [mask.getpixel((x, 0)) for x in (0, 20, 63)] == [0, 191, 255]


async def test_what_was_changed_is_said(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    image = written(halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    mask = written(hole(), "PNG", save_all=True, append_images=[Image.new("RGBA", (64, 64))])
    answer = (await edited(api, image, mask)).json()
    said = [f"{name}: the {kind} file has several frames; only the first was used"
            for name, kind in (("image", "GIF"), ("mask", "PNG"))]  # fmt: skip
    assert answer["warnings"][:2] == said
    assert (await api.get(f"/v1/jobs/{answer['job']}")).json()["warnings"][:2] == said


@pytest.mark.parametrize(
    ("content", "content_type", "got"),
    [
        (b"prompt=a&image=b", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        (b"a", None, "none"),
    ],
)
async def test_another_content_type_is_told_the_right_one(
    api: httpx.AsyncClient, content: bytes, content_type: str | None, got: str
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await api.post(ROUTE, content=content, headers=headers)
    assert answer.status_code == 415
    assert (
        answer.json()["error"]["message"] == f"content-type: must be multipart/form-data or application/json, got {got}"
    )


async def test_a_picture_is_turned_upright(api: httpx.AsyncClient, worker: FakeWorker, settings: Settings) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    assert (await edited(api, written(halves(), "JPEG", exif=exif, quality=95))).status_code == 200
    picture = await opened(settings, asked(worker)[1][InputRole.IMAGE])
    assert picture.getpixel((2, 32))[2] > 200  # type: ignore[index]


async def test_they_go_with_the_job(api: httpx.AsyncClient, worker: FakeWorker, settings: Settings) -> None:
    answer = await edited(api, png(hole()))
    names = asked(worker)[1].values()
    assert len(names) == 2
    assert (await api.delete(f"/v1/jobs/{answer.json()['job']}")).status_code == 200
    for name in names:
        with pytest.raises(FileNotFoundError):
            await Artifacts.open(settings).read(name)


async def test_nothing_stays_of_a_job_that_cannot_be_stored_whole(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Artifacts.save

    async def full(self: Artifacts, name: str, data: bytes) -> int:
        if "-mask-" in name:
            raise ArtifactsError("no space left")
        return await save(self, name, data)

    monkeypatch.setattr(Artifacts, "save", full)
    answer = await edited(api, png(hole()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "artifacts_unreachable")
    assert not list((settings.data_folder / "artifacts").iterdir())
    assert not worker.seen


async def test_the_same_key_and_files_are_the_same_job(
    api: httpx.AsyncClient, worker: FakeWorker, settings: Settings
) -> None:
    api.headers["idempotency-key"] = "one"
    first, again = await edited(api, png(hole())), await edited(api, png(hole()))
    assert first.json()["job"] == again.json()["job"]
    other = await edited(api, png(halves()))
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    kept = [each.name for each in (settings.data_folder / "artifacts").iterdir()]
    assert sorted(each for each in kept if "-image-" in each or "-mask-" in each) == sorted(asked(worker)[1].values())


async def test_a_stream_of_edits_has_their_names(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await edited(api, png(halves()), stream="true")
    assert "event: image_edit.completed" in answer.text


BOMB = png(Image.new("L", (5000, 5000)))
GRAY = png(Image.new("RGB", (64, 64)))


@pytest.mark.parametrize(
    ("files", "fields", "param", "said"),
    [
        ({}, {}, "image", "must be a file, or several"),
        ({"image": b"GIF89a not a picture"}, {}, "image", "the GIF file is broken or incomplete"),
        ({"image": png(halves())[:-40]}, {}, "image", "the PNG file is broken or incomplete"),
        ({"image": BOMB}, {}, "image", "at most 16777216 pixels, got 5000x5000"),
        ({"image": written(Image.new("F", (64, 64)), "TIFF")}, {}, "image", "8 or 16 bits per channel"),
        ({"image": b"\x89PNG" + b"\0" * 2000}, {}, "image", "a file of an unknown kind that begins with 89 50"),
        ({"image": png(Image.effect_noise((300, 300), 90))}, {}, "image", "at most 60000 bytes"),
        ({"image": GRAY, "mask": png(hole((64, 32)))}, {}, "mask", "64x64 and 64x32"),
        ({"image": GRAY, "mask": GRAY}, {}, "mask", "must be transparent (alpha below 128)"),
        ({"image": GRAY, "mask": b""}, {}, "mask", "the file is empty"),
        ({"image": GRAY}, {"size": "63x64"}, "size", "must be 64 to 64"),
        ({"image": GRAY}, {"model": "gpt-image-99"}, "model", "no model"),
        ({"image": GRAY}, {"input_fidelity": "high"}, "input_fidelity", "only low is supported"),
        ({"image": GRAY}, {"strength": "0"}, "strength", "greater than 0"),
        ({"image": GRAY}, {"strength": "nan"}, "strength", "less than or equal to 1"),
        ({"image": GRAY}, {"nothing": "1"}, "nothing", "unknown field"),
    ],
)
async def test_what_is_refused(
    settings: Settings, queue: Queue, files: dict[str, bytes], fields: dict[str, str], param: str, said: str
) -> None:
    sent: Any = {name: (f"{name}.png", data) for name, data in files.items()}
    fields = {"prompt": "a shape", **fields}
    async with serving(settings.model_copy(update={"input_max_bytes": 60_000})) as api:
        answer = await api.post(ROUTE, files=sent | {name: (None, value) for name, value in fields.items()})
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert said in error["message"], error
    assert answer.status_code in (400, 404, 422)
    assert await queue.depth("shapes-flux") == 0
    folder = settings.data_folder / "artifacts"
    assert not folder.exists() or not list(folder.iterdir())


async def test_more_images_than_the_model_takes_are_refused(api: httpx.AsyncClient) -> None:
    files = [("image[]", ("a.png", GRAY)), ("image[]", ("b.png", GRAY))]
    answer = await api.post(ROUTE, files=files, data={"prompt": "a shape"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_an_editing_model")
    assert "takes no 2 images" in answer.json()["error"]["message"]


async def test_a_model_that_cannot_is_refused_before_anything_is_read(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[models.plain]\nextends = "shapes-flux"\nedits = []\n[models.all]\nextends = "shapes-flux"\n'
                    'edits = ["img2img"]\n')  # fmt: skip
    async with serving(settings.model_copy(update={"catalog": file})) as api:
        models = (await api.get("/v1/models")).json()["data"]
        said = {
            model["id"]: [name for name, limits in model["inputs"].items() if limits]
            for model in models
            if "alias_of" not in model
        }
        assert said["shapes-flux"] == ["image", "mask"]
        assert (said["plain"], said["all"]) == ([], ["image"])
        masked = png(halves()), png(hole())
        for model, name, files, problem in (
            ("plain", "image", (b"not looked at",), "takes no images to start from"),
            ("all", "mask", (png(hole()),), "cannot regenerate the image's transparent parts: send an opaque image"),
            ("all", "mask", masked, "takes no mask: leave it out"),
        ):
            error = (await edited(api, *files, model=model)).json()["error"]
            assert (error["param"], error["code"]) == ("model", "not_an_editing_model")
            assert error["message"].startswith(f"model: {model} {problem}; ")
            able = [each for each, tasks in said.items() if name in tasks]
            assert error["message"].endswith(f"; {', '.join(able)} would")


async def test_a_body_larger_than_two_pictures_is_refused(settings: Settings) -> None:
    small = settings.model_copy(update={"input_max_bytes": 2000, "body_max_bytes": 2000})
    async with serving(small) as api:
        assert (await edited(api, b"\0" * 9000)).status_code == 413
        assert (await edited(api, b"\0" * 3000)).status_code == 400
        answer = await api.post("/v1/queue", content=b"\0" * 3000)
        assert answer.status_code == 413


def test_the_size_that_is_left_open() -> None:
    model = Catalog.load(Settings()).models["shapes-flux"]
    side = Range[int](default=1024, min=256, max=2048, multiple=16)
    large = model.model_copy(update={"width": side, "height": side})
    for size, fitting in (
        ((1000, 1000), (1024, 1024)),
        ((4000, 1000), (2048, 512)),
        ((100, 10_000), (256, 2048)),
        ((640, 480), (1184, 880)),
    ):
        assert fitting_size(*size, large) == fitting
