"""Uploaded LoRAs over a real socket: who may name, see and delete which, and what is refused before it is stored."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from app.api import lora_uploads
from app.api.middleware import body_limit
from app.api.routes import loras as lora_routes
from app.artifacts import Artifacts, lora_name
from app.catalog import Catalog
from app.jobs import LoraUse
from app.loading.errors import LoraError
from app.loading.lora_files import LoraFiles
from app.queue.queue import Queue
from app.queue.uploads import LoraRegistry
from app.settings import Settings
from tests.api.keyed import by, keyed
from tests.api.support import FakeWorker, serving, working
from tests.loras.lora_files import BAD, good, tensors
from tests.tiers import slow_but

ROUTE = "/v1/loras"
CATALOG = """
[loras.ink]
base = "shapes-flux"
path = "ink.safetensors"
trigger_words = ["in ink"]
scale = { default = 0.75, min = -1, max = 1.5 }

[models.twin]
extends = "shapes-flux"
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "more.toml").write_text(CATALOG)
    (tmp_path / "ink.safetensors").write_bytes(good())
    return settings.model_copy(update={"catalog": tmp_path / "more.toml"})


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as client:
        yield client


async def add(
    api: httpx.AsyncClient,
    data: bytes | None = None,
    name: str = "style.safetensors",
    key: str | None = None,
    **fields: Any,
) -> httpx.Response:
    data = good() if data is None else data
    form = {"base": "shapes-flux", **{field: str(value) for field, value in fields.items() if value is not None}}
    return await api.post(ROUTE, files={"file": (name, data)}, data=form, headers={} if key is None else by(key))


def stored(settings: Settings) -> list[str]:
    folder = settings.data_folder / "artifacts"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


async def test_from_a_file_to_a_job(api: httpx.AsyncClient, worker: FakeWorker, settings: Settings) -> None:
    added = await add(
        api, id="crayon", trigger_words="in crayon, crayon drawing", scale_default=0.5, scale_min=-1, scale_max=1,
        description="wax", licence="CC0",
    )  # fmt: skip
    assert added.status_code == 201, added.text
    shown = added.json()
    version = shown.pop("version")
    created = shown.pop("created")
    assert shown == {
        "id": "crayon", "object": "lora", "origin": "own", "base": "shapes-flux", "models": ["shapes-flux", "twin"],
        "description": "wax", "licence": "CC0", "trigger_words": ["in crayon", "crayon drawing"],
        "scale": {"default": 0.5, "min": -1.0, "max": 1.0, "multiple": None, "offset": None},
        "sha256": hashlib.sha256(good()).hexdigest(), "size_bytes": len(good()), "rank": 4, "layers": 1,
        "parts": ["transformer"],
    }  # fmt: skip
    assert created > 1_700_000_000
    assert added.headers["location"] == f"{ROUTE}/crayon"
    assert (await api.get(added.headers["location"])).json() == added.json()
    assert (await api.get(f"{ROUTE}/crayon@{version}")).json() == added.json()
    listed = (await api.get(ROUTE)).json()["data"]
    assert [(lora["id"], lora["origin"]) for lora in listed] == [
        ("crayon", "own"), ("dotted", "catalog"), ("ink", "catalog"), ("underlined", "catalog"),
    ]  # fmt: skip
    assert [lora["id"] for lora in (await api.get(ROUTE, params={"model": "shapes-sd"})).json()["data"]] == []
    assert (await api.get("/v1/models/twin")).json()["loras"] == ["crayon", "dotted", "ink", "underlined"]
    assert (await api.get("/v1/models/shapes-sd")).json()["loras"] == []
    assert stored(settings) == [lora_name(version)]

    body = {"prompt": "a shape", "loras": [{"id": "crayon"}, {"id": "ink", "scale": 1}]}
    answer = await api.post("/v1/jobs", json=body, headers={"prefer": "wait=10"})
    assert answer.status_code == 200, answer.text
    assert worker.seen[-1].loras == (LoraUse(f"crayon@{version}", 0.5), LoraUse("ink", 1.0))
    again = {"prompt": "a shape", "loras": answer.json()["loras"]}
    assert (await api.post("/v1/jobs", json=again)).json()["loras"] == answer.json()["loras"]


async def test_the_name_of_the_file_is_the_id(api: httpx.AsyncClient) -> None:
    assert (await add(api, name="my-style.v2.safetensors")).json()["id"] == "my-style.v2"


@pytest.mark.parametrize("name", slow_but([*BAD][:3], BAD))  # tests/loras/test_check.py has all of them
async def test_a_bad_file_is_refused_and_nothing_is_stored(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, name: str
) -> None:
    answer = await add(api, BAD[name][0], id="bad")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_lora", "file"), error
    assert str(settings.data_folder) not in error["message"]
    assert stored(settings) == []
    assert await queue.loras.visible("default") == []


PATHS = ["../../etc/passwd", "/etc/passwd", "..\\up", "a/b", ".hidden", "a b", "", "a\0b", "a@1", "ü", "a" * 65, "-a"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_is_no_id(api: httpx.AsyncClient, settings: Settings, path: str) -> None:
    for answer in (
        await add(api, name=f"{path}.safetensors"),
        await add(api, name="x.bin", id=path),
        await add(api, name="x.bin"),
    ):
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["error"]["param"] in ("id", "file")
    assert stored(settings) == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"base": "nope"}, 400, "base"),
        ({"base": "shapes-sd"}, 400, "file"),
        ({"base": None}, 422, "base"),
        ({"id": "ink"}, 409, "id"),
        ({"scale_default": 3}, 400, "scale_default"),
        ({"scale_max": "inf"}, 400, "scale"),
        ({"scale_min": "nan"}, 400, "scale_default"),
        ({"scale_max": 1000}, 400, "scale"),
        ({"trigger_words": "a" * 300}, 400, "trigger_words"),
        ({"description": "a" * 3000}, 400, "description"),
        ({"colour": "red"}, 422, "colour"),
        ({"loras": "ink"}, 422, "loras"),
    ],
)
async def test_a_field_that_does_not_fit(
    api: httpx.AsyncClient, settings: Settings, fields: dict[str, Any], status: int, param: str
) -> None:
    form = {"id": "style", "base": "shapes-flux", **{name: str(value) for name, value in fields.items()}}
    form = {name: text for name, text in form.items() if text != "None"}
    answer = await api.post(ROUTE, files={"file": ("a.safetensors", good())}, data=form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert stored(settings) == []


async def test_what_is_no_upload(api: httpx.AsyncClient) -> None:
    assert (await api.post(ROUTE, json={"base": "shapes-flux"})).status_code == 415
    assert (await api.post(ROUTE)).status_code == 415
    answer = await api.post(ROUTE, files={"base": (None, "shapes-flux"), "file": (None, "a text")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


async def test_one_that_jobs_need_stays(api: httpx.AsyncClient, queue: Queue, settings: Settings) -> None:
    assert (await add(api)).status_code == 201
    job = (await api.post("/v1/jobs", json={"prompt": "a shape", "loras": [{"id": "style"}]})).json()
    refused = await api.delete(f"{ROUTE}/style")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "lora_in_use")
    assert len(stored(settings)) == 1
    await api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (await api.delete(f"{ROUTE}/style")).json() == {"id": "style", "object": "lora", "deleted": True}
    assert stored(settings) == []
    for answer in (await api.get(f"{ROUTE}/style"), await api.delete(f"{ROUTE}/style")):
        assert answer.status_code == 404
    unknown = await api.post("/v1/jobs", json={"prompt": "a shape", "loras": [{"id": "style"}]})
    assert "no LoRA 'style'; model shapes-flux takes dotted, ink, underlined" in unknown.json()["error"]["message"]


async def test_a_new_file_under_an_old_id_is_another_version(api: httpx.AsyncClient) -> None:
    old = (await add(api)).json()["version"]
    assert (await add(api)).json()["error"]["code"] == "lora_exists"
    await api.delete(f"{ROUTE}/style")
    new = (await add(api, good(1))).json()["version"]
    assert new != old
    body = {"prompt": "a shape", "loras": [{"id": f"style@{old}"}]}
    assert (await api.post("/v1/jobs", json=body)).json()["error"]["code"] == "lora_not_found"


async def test_a_file_whose_upload_or_removal_is_cut_off_is_left_over(
    api: httpx.AsyncClient, queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(*_: Any) -> None:
        raise ConnectionError

    version = (await add(api, id="kept")).json()["version"]
    assert await queue.loras.leftovers(-60) == []
    with monkeypatch.context() as patch:
        patch.setattr(LoraRegistry, "add", cut_off)
        assert (await add(api)).status_code == 500
        assert stored(settings) == [lora_name(version)]  # removed at once, as this process is still there
        assert await queue.loras.leftovers(-60) == []
        patch.setattr(lora_uploads, "remove_file", cut_off)
        assert (await add(api)).status_code == 500
    [left] = await queue.loras.leftovers(-60)
    assert sorted(stored(settings)) == sorted(map(lora_name, (version, left)))
    monkeypatch.setattr(lora_routes, "remove_file", cut_off)
    assert (await api.delete(f"{ROUTE}/kept")).status_code == 500
    assert await queue.loras.leftovers(-60) == [left, version]
    assert (await api.get(f"{ROUTE}/kept")).status_code == 404


async def test_the_catalog_s_are_not_deleted(api: httpx.AsyncClient) -> None:
    answer = await api.delete(f"{ROUTE}/ink")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "lora_of_catalog")


async def test_limits_of_a_tenant(settings: Settings) -> None:
    changed = settings.model_copy(update={"loras_per_tenant": 2, "lora_bytes_per_tenant": 2 * len(good()) + 100})
    async with serving(changed) as api:
        assert [(await add(api, id=name)).status_code for name in "ab"] == [201, 201]
        refused = await add(api, id="c")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "lora_limit")
        assert len(stored(settings)) == 2


async def test_a_large_file_is_refused_while_it_is_read(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"lora_max_bytes": 2000, "body_max_bytes": 2000})) as api:

        async def body(parts: int) -> AsyncIterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.safetensors"\r\n\r\n'
            for _ in range(parts):
                yield bytes(1000)

        kind = {"content-type": "multipart/form-data; boundary=x"}
        for content in (body(50), bytes(5000)):
            answer = await api.post(ROUTE, content=content, headers=kind)
            assert (answer.status_code, answer.headers["connection"]) == (413, "close"), answer.text
        assert (await add(api, good()[:500])).status_code == 400


async def test_a_slow_upload_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "UPLOAD_BYTES_PER_S", 1e9)
    async with serving(settings.model_copy(update={"read_timeout_s": 0.2})) as api:

        async def body() -> AsyncIterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.safetensors"\r\n\r\n'
            await asyncio.sleep(1)
            yield b"late"

        kind = {"content-type": "multipart/form-data; boundary=x"}
        assert (await api.post(ROUTE, content=body(), headers=kind)).status_code == 408


# Of tenants: alice's is `a`, bob's `b`; the operator has every scope.


async def test_who_may_do_what_with_whose(settings: Settings, queue: Queue) -> None:
    async with serving(keyed(settings)) as api:
        assert (await add(api, id="mine", key="alice")).status_code == 201
        assert (await add(api, id="mine", key="bob")).status_code == 201  # ids are a tenant's own
        assert (await add(api, id="theirs", key="bob")).status_code == 201
        assert (await add(api, id="everybody", shared="true", key="operator")).status_code == 201
        for key, shared in (("alice", "true"), ("alice-reads", None)):
            refused = await add(api, id="x", key=key, shared=shared)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        assert (await add(api, id="everybody", key="alice")).status_code == 409
        assert (await add(api, id="x")).status_code == 401

        seen = {
            "alice": ["dotted", "everybody", "ink", "mine", "underlined"],
            "bob": ["dotted", "everybody", "ink", "mine", "theirs", "underlined"],
            "operator": ["dotted", "everybody", "ink", "underlined"],
        }
        for key, names in seen.items():
            listed = (await api.get(ROUTE, headers=by(key))).json()["data"]
            assert [lora["id"] for lora in listed] == names
            assert (await api.get("/v1/models/shapes-flux", headers=by(key))).json()["loras"] == names
            for name in ("mine", "theirs", "everybody", "ink", "nobody"):
                expected = 200 if name in names else 404
                assert (await api.get(f"{ROUTE}/{name}", headers=by(key))).status_code == expected
                body = {"prompt": "a shape", "loras": [{"id": name}]}
                answer = await api.post("/v1/jobs", json=body, headers=by(key))
                assert answer.status_code == (202 if name in names else 400), answer.text

        versions = {
            key: (await api.get(f"{ROUTE}/mine", headers=by(key))).json()["version"] for key in ("alice", "bob")
        }
        stolen = {"prompt": "a shape", "loras": [{"id": f"mine@{versions['bob']}"}]}
        answer = await api.post("/v1/jobs", json=stolen, headers=by("alice"))
        missing = {"prompt": "a shape", "loras": [{"id": f"mine@{'0' * 16}"}]}
        other = await api.post("/v1/jobs", json=missing, headers=by("alice"))
        assert answer.status_code == other.status_code == 400
        hidden = answer.json()["error"]["message"].replace(versions["bob"], "0" * 16)
        assert hidden == other.json()["error"]["message"]  # nothing tells that there is one

        for key, name, status in (
            ("alice", "theirs", 404), ("operator", "theirs", 404), ("alice", "everybody", 403),
            ("alice-reads", "mine", 403), ("alice", "ink", 409),
        ):  # fmt: skip
            assert (await api.delete(f"{ROUTE}/{name}", headers=by(key))).status_code == status, (key, name)
        async with working(queue, settings):
            while await queue.depth("shapes-flux"):  # noqa: ASYNC110 - looking is all that there is
                await asyncio.sleep(0.01)
        for key, name in (("alice", "mine"), ("bob", "theirs"), ("operator", "everybody")):
            while (answer := await api.delete(f"{ROUTE}/{name}", headers=by(key))).status_code == 409:
                pass
            assert answer.status_code == 200, answer.text
        assert [lora.id for lora in await queue.loras.visible("b")] == ["mine"]


# How a worker finds the files.


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    return Catalog.load(settings)


async def uploaded(api: httpx.AsyncClient, **fields: Any) -> str:
    shown = (await add(api, **fields)).json()
    return f"{shown['id']}@{shown['version']}"


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def test_a_worker_fetches_an_uploaded_file_once(
    api: httpx.AsyncClient, settings: Settings, catalog: Catalog
) -> None:
    use_id = await uploaded(api)
    files, model = LoraFiles(settings, catalog), catalog.models["shapes-flux"]
    path = await in_thread(files.path, use_id, model)
    assert path.read_bytes() == good()
    assert path.parent == settings.data_folder / "loras"
    await Artifacts.open(settings).delete(lora_name(use_id.partition("@")[2]))
    assert await in_thread(files.path, use_id, model) == path
    assert await in_thread(files.path, "ink", model) == settings.catalog.parent / "ink.safetensors"
    path.unlink()
    with pytest.raises(LoraError, match="cannot be fetched"):
        await in_thread(files.path, use_id, model)
    await api.delete(f"{ROUTE}/style")
    with pytest.raises(LoraError, match="it was deleted"):
        await in_thread(files.path, use_id, model)
    with pytest.raises(LoraError, match="not in this worker's catalog"):
        await in_thread(files.path, "pastel", model)
    assert [path.name for path in (settings.data_folder / "loras").iterdir()] == []


async def test_a_worker_notices_a_file_that_was_changed(
    api: httpx.AsyncClient, settings: Settings, catalog: Catalog
) -> None:
    use_id = await uploaded(api)
    stored_path = settings.data_folder / "artifacts" / lora_name(use_id.partition("@")[2])
    stored_path.write_bytes(good(1))
    files, model = LoraFiles(settings, catalog), catalog.models["shapes-flux"]
    with pytest.raises(LoraError, match="not the one that was uploaded"):
        await in_thread(files.path, use_id, model)
    ink = settings.catalog.parent / "ink.safetensors"
    ink.write_bytes(good()[:-4])
    with pytest.raises(LoraError, match="loras: ink: it is truncated") as caught:
        await in_thread(files.path, "ink", model)
    assert str(ink) not in str(caught.value)
    ink.unlink()
    with pytest.raises(LoraError, match="loras: ink: its file"):
        await in_thread(files.path, "ink", model)


async def test_old_copies_make_room(api: httpx.AsyncClient, settings: Settings, catalog: Catalog) -> None:
    small = settings.model_copy(update={"lora_cache_bytes": 2 * len(good())})
    files, model = LoraFiles(small, catalog), catalog.models["shapes-flux"]
    paths = []
    for seed in range(3):
        use_id = await uploaded(api, data=good(seed), id=f"style{seed}")
        paths.append(await in_thread(files.path, use_id, model))
        os.utime(paths[-1], (seed, seed))
    assert [path.exists() for path in paths] == [False, True, True]


async def test_tensors_may_be_of_half_the_width(api: httpx.AsyncClient) -> None:
    half = save({key: tensor.astype(np.float16) for key, tensor in tensors().items()})
    assert (await add(api, half)).status_code == 201
