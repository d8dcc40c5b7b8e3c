"""Aliases of models, and requests that are lenient by the name that they use, their key, or the service."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.api.inputs.sizes import nearest_size
from app.api.requests.fields import HEADER_MAX_BYTES, warned_parameters, warning_header
from app.catalog import Catalog, CatalogError, Range
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.keyed import by, keyed
from tests.api.support import FakeWorker, serving, working
from tests.catalogs import MODEL
from tests.metrics_text import read
from tests.pictures import png

IMAGES, JOBS = "/v1/images/generations", "/v1/jobs"
PROMPT = {"prompt": "a shape"}
TABLES = """
[aliases.house]
model = "shapes-sd"
negative_prompt = "a red shape"
response_format = "url"
[aliases.dall-e-3]
model = "shapes-sd-turbo"
[aliases.elsewhere]
model = "flux-dev"
"""


@pytest.fixture
def catalogued(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "models.toml"
    file.write_text(TABLES)
    return settings.model_copy(update={"catalog": file})


def aliases(settings: Settings, *written: str) -> dict[str, str]:
    loaded = Catalog.load(settings.model_copy(update={"aliases": written or None})).aliases
    return {name: alias.model for name, alias in loaded.items()}


def test_by_default_names_of_openais_models_mean_the_default_models(settings: Settings) -> None:
    found = aliases(settings)
    assert found["dall-e-3"] == found["gpt-image-1"] == found["gpt-image-2"] == "shapes-flux"
    assert found["sora-2"] == found["sora-2-pro"] == "shapes-wan"
    assert aliases(settings, "none") == {}
    assert Settings(aliases="").aliases is None  # type: ignore[arg-type]
    read = Settings(aliases="dall-e-3, x = shapes-sd").aliases  # type: ignore[arg-type]
    assert read == ("dall-e-3", "x = shapes-sd")


def test_aliases_are_set_by_name(settings: Settings, catalogued: Settings) -> None:
    assert aliases(settings, "dall-e-3", "mine=shapes-sd", "sora-2") == {
        "dall-e-3": "shapes-flux", "mine": "shapes-sd", "sora-2": "shapes-wan",
    }  # fmt: skip
    assert aliases(catalogued, "dall-e-2") == {"dall-e-2": "shapes-flux", "house": "shapes-sd",
                                               "dall-e-3": "shapes-sd-turbo"}  # fmt: skip
    assert aliases(catalogued, "none") == {}
    assert aliases(catalogued)["dall-e-3"] == "shapes-sd-turbo"
    assert "elsewhere" not in aliases(catalogued)  # its model is known, and not served


def test_without_a_model_of_its_kind_a_default_alias_is_none(settings: Settings) -> None:
    images = aliases(settings.model_copy(update={"models": ("shapes-sd",)}))
    assert (images["dall-e-3"], "sora-2" in images) == ("shapes-sd", False)


def test_a_model_goes_before_an_alias_of_its_name(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[models.gpt-image-1]\nextends = "shapes-flux"\n')
    assert "gpt-image-1" not in aliases(settings.model_copy(update={"catalog": file}))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (("x=gone",), "NAG_ALIASES: x: no model 'gone' is served"),
        (("x=",), "NAG_ALIASES: 'x=': must be a name or name=model"),
        (("=shapes-flux",), "must be a name"),
        (("none", "x"), "'none': must be"),
        (("x", "x=shapes-sd"), "each name once"),
    ],
)
def test_a_setting_that_names_no_alias(settings: Settings, written: tuple[str, ...], message: str) -> None:
    with pytest.raises(CatalogError, match=re.escape(message)):
        aliases(settings, *written)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[aliases.a]\nmodel = "gone"', "aliases.a.model: 'gone' is none of"),
        ("[aliases.a]\n", "aliases.a.model: Field required"),
        ('[aliases.shapes-sd]\nmodel = "shapes-flux"', "aliases.shapes-sd: there is a model of this name"),
        ('[aliases.a]\nmodel = "shapes-flux"\nnegative = "x"', "aliases.a.negative: Extra inputs"),
        ('aliases = "a"', "aliases: must be tables"),
    ],
)
def test_a_table_that_is_no_alias(settings: Settings, tmp_path: Path, table: str, message: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(table)
    with pytest.raises(CatalogError, match=re.escape(message)):
        Catalog.load(settings.model_copy(update={"catalog": file}))


async def test_one_model_with_two_names_has_one_queue(api: httpx.AsyncClient, queue: Queue) -> None:
    """The engine joins what lies in one queue, and loads weights by the model's id: the name changes neither."""
    for name in ("shapes-flux", "dall-e-3", "gpt-image-1"):
        answer = await api.post(JOBS, json={**PROMPT, "model": name})
        job = answer.json()
        assert (answer.status_code, job["model"], job["request"]["model"]) == (202, name, "shapes-flux")
        assert job.get("alias_of", "shapes-flux") == "shapes-flux"
        assert ("alias_of" in job) == (name != "shapes-flux")
    assert await queue.depth("shapes-flux") == 3
    assert await queue.depth("dall-e-3") == 0
    for name in ("shapes-flux", "dall-e-3"):  # the list asks for the model, whichever name it is given
        assert len((await api.get(JOBS, params={"model": name})).json()["data"]) == 3
    assert [queued["model"] for queued in (await api.get("/v1/queue")).json()["data"] if queued["queued"]] == [
        "shapes-flux"
    ]


async def test_an_alias_is_listed_with_its_models_limits(catalogued: Settings) -> None:
    async with serving(catalogued) as api:
        alias, model = [(await api.get(f"/v1/models/{name}")).json() for name in ("house", "shapes-sd")]
        listed = (await api.get("/v1/models")).json()["data"]
    assert alias == {**model, "id": "house", "alias_of": "shapes-sd"}
    assert "alias_of" not in model
    assert alias in listed
    assert [model["id"] for model in listed if model["default"]] == ["shapes-flux"]


async def test_an_alias_brings_its_negative_prompt(catalogued: Settings, queue: Queue, worker: FakeWorker) -> None:
    async with serving(catalogued) as api:
        answers = [
            (await api.post(JOBS, json={**PROMPT, "model": name, **fields})).json()
            for name, fields in (
                ("house", {}), ("house", {"negative_prompt": " "}), ("house", {"negative_prompt": "a square"}),
                ("house", {"nag": {"negative_prompt": "a circle"}}), ("shapes-sd", {}),
            )
        ]  # fmt: skip
    requests = [answer["request"] for answer in answers]
    own = [request["nag"] and request["nag"]["negative_prompt"] for request in requests]
    assert own == ["a red shape", "a red shape", "a square", "a circle", None]
    assert [answer["warnings"] for answer in answers] == [[]] * 5


async def test_what_an_alias_brings_is_in_openais_answers(catalogued: Settings, queue: Queue) -> None:
    async with serving(catalogued) as api, working(queue, catalogued, "shapes-sd"):
        named, plain = [
            (await api.post(IMAGES, json={**PROMPT, "model": model})).json() for model in ("house", "shapes-sd")
        ]
    assert (named["negative_prompt"], named["nag"]["applied"]) == ("a red shape", True)
    assert "negative_prompt" not in plain


async def test_the_name_is_the_mode(api: httpx.AsyncClient) -> None:
    wrong = {**PROMPT, "output_compression": 50}
    lenient = (await api.post(JOBS, json={**wrong, "model": "dall-e-3"})).json()
    assert lenient["request"]["strict"] is False
    assert lenient["warnings"] == ["output_compression was left out: a png is lossless; ask for jpeg or webp"]
    for fields in ({"model": "shapes-flux"}, {}, {"model": "dall-e-3", "strict": True}):
        answer = await api.post(JOBS, json={**wrong, **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "output_compression")
    assert (await api.post(JOBS, json={**wrong, "model": "shapes-flux", "strict": False})).status_code == 202


async def test_a_service_may_be_lenient(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"strict": False})) as api:
        answer = await api.post(JOBS, json={**PROMPT, "promt": "x"})
        assert (answer.status_code, answer.json()["warnings"]) == (
            202, ["promt was left out: unknown field; did you mean prompt?"],
        )  # fmt: skip
        assert (await api.post(JOBS, json={**PROMPT, "promt": "x", "strict": True})).status_code == 422


async def test_a_key_may_be_lenient(settings: Settings) -> None:
    async with serving(keyed(settings, strict=False)) as api:  # alice's
        statuses = [
            (await api.post(JOBS, json={**PROMPT, "promt": "x"}, headers=by(who))).status_code
            for who in ("alice", "bob")
        ]
    assert statuses == [202, 422]


LENIENT: list[tuple[dict[str, Any], list[str]]] = [
    ({"size": "1024x1024"}, ["size: model shapes-flux makes no 1024x1024; the nearest, 64x64, was used"]),
    ({"width": 63}, ["width: model shapes-flux makes no 63x64; the nearest, 64x64, was used"]),
    ({"quality": "hd"}, ["quality was left out: only auto or standard is supported"]),
    ({"style": "vivid"}, ["style was left out: not supported"]),
    ({"background": "transparent"}, ["background was left out: only auto or opaque is supported"]),
    ({"seed": -1}, ["seed was left out: -1 asks for one to be drawn"]),
    ({"steps": 80}, ["steps: model shapes-flux takes 1 to 50, not 80; 50 was used"]),
    ({"guidance_scale": 0}, ["guidance_scale: model shapes-flux takes 1 to 20, not 0.0; 1.0 was used"]),
    ({"sampler": "euler"}, ["sampler was left out: unknown field"]),
    ({"\ud800": 1}, ["? was left out: unknown field"]),
    ({"": 1}, ['"" was left out: unknown field']),
    (
        {f"field_{number}": 1 for number in range(12)},
        [
            *(f"field_{number} was left out: unknown field" for number in range(10)),
            "2 more unknown fields were left out",
        ],
    ),
    ({"quality": "standard", "moderation": "low", "negative_prompt": ""}, []),
]


@pytest.mark.parametrize(("fields", "warnings"), LENIENT)
async def test_what_a_lenient_request_goes_without_is_said_everywhere(
    api: httpx.AsyncClient, worker: FakeWorker, caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any], warnings: list[str],
) -> None:  # fmt: skip
    body = json.dumps({**PROMPT, "model": "gpt-image-1", **fields})
    with caplog.at_level("INFO"):
        answer = await api.post(IMAGES, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["warnings"] == [*warnings, "a worker's word"]
    header = json.loads(f"[{answer.headers['x-nag-warnings']}]")
    assert header == answer.json()["warnings"]
    lines = [record.getMessage() for record in caplog.records if "request_warnings" in record.getMessage()]
    parameters = warned_parameters(warnings)
    assert len(lines) == bool(warnings)
    assert all(",".join(parameters) in line for line in lines)
    counts = {name[1]: count for name, count in (await read(api)).items() if name[0] == "nag_request_warnings_total"}
    assert counts == dict.fromkeys(parameters, 1.0)
    assert worker.seen[0].alias == "gpt-image-1"


STILL_WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"prompt": None}, 422, "prompt"),
    ({"prompt": "x" * 3000}, 400, "prompt"),
    ({"size": "large"}, 422, "size"),
    ({"n": 11}, 422, "n"),
    ({"quality": 5}, 422, "quality"),
    ({"nag": {"sacle": 5}}, 422, "nag.sacle"),
    ({"nag_scale": 0.5}, 400, "nag_scale"),
    ({"image": "cat.png"}, 400, "image"),
    ({"seed": -2}, 422, "seed"),
]


async def test_what_changes_the_image_is_refused_all_the_same(api: httpx.AsyncClient, queue: Queue) -> None:
    for fields, status, param in STILL_WRONG:
        answer = await api.post(JOBS if "image" in fields else IMAGES, json={**PROMPT, "model": "dall-e-3", **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert await queue.depth("shapes-flux") == 0


async def test_a_mask_that_does_not_fit_is_refused_all_the_same(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    image, mask = (png(Image.new("RGBA", size)) for size in ((64, 64), (32, 64)))
    for files in ({"image": image, "mask": mask}, {"image": b"no image"}):
        answer = await api.post(
            "/v1/images/edits", data={**PROMPT, "model": "gpt-image-1"},
            files={name: ("a.png", data) for name, data in files.items()},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, [*files][-1])


async def test_an_alias_of_the_other_kind_is_refused(settings: Settings, video_entry: Path) -> None:
    async with serving(settings.model_copy(update={"catalog": video_entry})) as api:
        answer = await api.post("/v1/videos", json={**PROMPT, "model": "dall-e-3"})
        assert answer.json()["error"]["code"] == "not_a_video_model"
        video = (await api.post("/v1/videos", json={**PROMPT, "model": "sora-2", "seconds": "90"})).json()
    assert (video["model"], video["alias_of"]) == ("sora-2", MODEL)
    assert video["warnings"] == [
        f"seconds: must be 0.3125 to 5.0625 for model {MODEL} at 16 frames a second, not 90; 5.0625 was used"
    ]
    assert (video["num_frames"], video["seconds"]) == (81, "5.0625")


async def test_a_default_alias_leaves_a_request_to_a_model_that_takes_its_files(
    settings: Settings, tmp_path: Path, queue: Queue
) -> None:
    file = tmp_path / "models.toml"
    file.write_text('default = "plain"\n[models.plain]\nextends = "shapes-flux"\ninputs = {}\n')
    served = settings.model_copy(update={"catalog": file, "models": ("plain", "shapes-sd")})
    await queue.registry.announce("busy", ["shapes-sd"], 60)
    async with serving(served) as api:
        assert (await api.get("/v1/models/dall-e-2")).json()["alias_of"] == "plain"
        files = {"image": ("a.png", png(Image.new("RGB", (64, 64))))}
        data = {**PROMPT, "model": "dall-e-2"}
        asking = asyncio.create_task(api.post("/v1/images/edits", data=data, files=files))
        async with asyncio.timeout(20):
            while not await queue.depth("shapes-sd"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])


@pytest.mark.parametrize(
    ("model", "setting", "asked", "key"),
    [
        ("dall-e-2", "b64_json", {}, "url"),
        ("gpt-image-1", "url", {}, "b64_json"),
        ("house", "b64_json", {}, "url"),
        ("shapes-flux", "b64_json", {}, "b64_json"),
        ("shapes-flux", "url", {}, "url"),
        ("dall-e-2", "b64_json", {"response_format": "base64"}, "b64_json"),
        ("gpt-image-1", "b64_json", {"response_format": "url"}, "url"),
    ],
)
async def test_how_images_are_answered(
    catalogued: Settings, queue: Queue, model: str, setting: str, asked: dict[str, Any], key: str
) -> None:
    settings = catalogued.model_copy(update={"response_format": setting})
    served = Catalog.load(settings).own_id(model)
    async with serving(settings) as api, working(queue, settings, served):
        [image] = (await api.post(IMAGES, json={**PROMPT, "model": model, **asked})).json()["data"]
    assert image.keys() == {key, "seed"}


async def test_a_stream_carries_base64_whatever_the_alias_says(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    answer = await api.post(IMAGES, json={**PROMPT, "model": "dall-e-3", "stream": True, "quality": "hd"})
    assert '"b64_json"' in answer.text
    assert answer.headers["x-nag-warnings"] == '"quality was left out: only auto or standard is supported"'


async def test_events_and_webhooks_name_the_alias(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    job = (await api.post(JOBS, json={**PROMPT, "model": "gpt-image-1"}, headers={"prefer": "wait=20"})).json()
    told = (await api.get(f"/v1/jobs/{job['id']}/events")).text
    last = json.loads(told.split("data: ")[-1].split("\n")[0])
    assert (last["job"]["model"], last["job"]["alias_of"]) == ("gpt-image-1", "shapes-flux")


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1792, 1024), (1472, 832)),
        ((1280, 720), (1344, 768)),
        ((720, 1280), (768, 1344)),
        ((512, 512), (512, 512)),
        ((64, 64), (256, 256)),
        ((4096, 3072), (1536, 1152)),
        ((10_000, 10), (1536, 256)),
    ],
)
def test_the_nearest_size_has_the_proportions_and_then_the_area(asked: tuple[int, int], made: tuple[int, int]) -> None:
    side = Range[int](default=1024, min=256, max=1536, multiple=64)
    model = Catalog.load(Settings()).models["shapes-flux"].model_copy(update={"width": side, "height": side})
    assert nearest_size(*asked, model) == made
    fixed = model.model_copy(update={"width": Range[int](default=832, min=832, max=832),
                                     "height": Range[int](default=480, min=480, max=480)})  # fmt: skip
    assert nearest_size(*asked, fixed) == (832, 480)


def test_the_header_is_bounded_and_ascii() -> None:
    assert warning_header([]) == {}
    [header] = warning_header(["größe: x"]).values()
    assert header == '"gr\\u00f6\\u00dfe: x"'
    [header] = warning_header([f"{number} " + "x" * 100 for number in range(40)]).values()
    assert len(header) < HEADER_MAX_BYTES + 200
    *shown, rest = json.loads(f"[{header}]")
    assert rest == f"{40 - len(shown)} more in the body"
