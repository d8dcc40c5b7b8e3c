"""Artifacts in a bucket of a real S3 server, its signed links, and who refuses which."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import obstore
import pytest
from PIL import Image

from app.artifacts import Artifacts, ArtifactsError, artifact_name
from app.artifacts.store_factory import Bucket, open_store
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.outputs.video import encode_mp4
from tests import browser, s3
from tests.api.support import FakeWorker, serving
from tests.artifacts import last_call
from tests.claiming import claim
from tests.limits import HANG_S
from tests.pictures import png

pytestmark = pytest.mark.slow  # starts an S3 server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    executable = s3.find()
    if executable is None:
        pytest.skip("no S3 server here: SeaweedFS's `weed` is not on the PATH")
    with s3.serving(executable, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def in_bucket(settings: Settings, server: s3.S3) -> Settings:
    """A prefix of the test's own."""
    url = f"{server.url}/{settings.data_dir.parent.name}"
    read = {"artifacts_url": url, "artifacts_options": dict(server.options), "retention_s": 60.0}
    return Settings(**{**settings.model_dump(), **read})


@pytest.fixture
def store(in_bucket: Settings) -> Artifacts:
    return Artifacts.open(in_bucket)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=HANG_S) as client:
        yield client


async def test_an_open_file_is_a_copy_on_the_disk(store: Artifacts) -> None:
    name, data = artifact_name("a", 0, "mp4"), os.urandom(700_001)
    await store.save(name, data)
    file = await store.open_file(name)
    await store.delete(name)
    assert (file.seek(-3, os.SEEK_END), file.read()) == (len(data) - 3, data[-3:])
    assert (file.seek(0), file.read()) == (0, data)
    with pytest.raises(FileNotFoundError):
        await store.open_file(name)


async def test_saved_found_read_in_parts_deleted(store: Artifacts, tmp_path: Path) -> None:
    name, data = artifact_name("job_1", 0, "mp4"), os.urandom(20 * 2**20)  # two parts
    with (tmp_path / "video").open("w+b") as file:
        file.write(data)
        assert await store.save(name, file) == len(data)
    assert (await store.find(name)).size_bytes == len(data)
    assert b"".join([each async for each in store.stream(name, 5, len(data) - 5)]) == data[5:-5]
    assert await store.read(name) == data
    await store.delete(name)
    await store.delete(name)
    for gone in (store.read(name), store.find(name)):
        with pytest.raises(FileNotFoundError):
            await gone


async def test_a_link_is_answered_by_the_bucket_until_it_is_changed_or_expires(
    store: Artifacts, server: s3.S3, http: httpx.AsyncClient
) -> None:
    name, other = (artifact_name("job_1", index, "png") for index in range(2))
    for each in (name, other):
        await store.save(each, b"a picture")
    url = store.signed_url(name, 60)
    assert url is not None
    assert url.startswith(server.endpoint)
    answer = await http.get(url, headers={"range": "bytes=2-8"})
    assert (answer.status_code, answer.content) == (206, b"picture")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'

    query = parse_qs(urlsplit(url).query)
    end = "0" if url[-1] != "0" else "1"
    changed = {
        "another file": url.replace(name, other),
        "another time": url.replace(f"X-Amz-Expires={query['X-Amz-Expires'][0]}", "X-Amz-Expires=6000"),
        "another signature": url[:-1] + end,
        "no signature": url.partition("?")[0],
    }
    assert {why: (await http.get(each)).status_code for why, each in changed.items()} == dict.fromkeys(changed, 403)
    assert (await http.put(url, content=b"mine")).status_code == 403
    assert (await http.delete(url)).status_code == 403

    brief = store.signed_url(name, 1)
    assert brief is not None
    while (late := await http.get(brief)).status_code == 200:
        pass
    assert (late.status_code, b"expired" in late.content.lower()) == (403, True)
    assert await store.read(name) == b"a picture"


async def test_a_job_s_links_lead_into_the_bucket_and_its_result_comes_through_the_api(
    in_bucket: Settings, queue: Queue, server: s3.S3, http: httpx.AsyncClient
) -> None:
    async with serving(in_bucket) as api:
        job = await made(api, queue, in_bucket)
        [output] = job["outputs"]
        assert output["url"].startswith(server.endpoint)
        through = await api.get(f"/v1/jobs/{job['id']}/result", headers={"range": "bytes=1-3"})
        assert (through.status_code, through.content) == (206, b"PNG")
        direct = await http.get(output["url"])
        assert (direct.status_code, len(direct.content)) == (200, output["size_bytes"])
    by_api = in_bucket.model_copy(update={"artifacts_links": "api"})
    async with serving(by_api) as api:
        [output] = (await api.get(f"/v1/jobs/{job['id']}")).json()["outputs"]
        assert (await api.get(output["url"])).content == direct.content
        assert (await api.get(output["url"][:-1])).status_code == 403


async def test_links_lead_to_the_public_endpoint(
    in_bucket: Settings, queue: Queue, server: s3.S3, http: httpx.AsyncClient
) -> None:
    public = server.endpoint.replace("127.0.0.1", "localhost")
    async with serving(in_bucket.model_copy(update={"artifacts_public_endpoint": public})) as api:
        [output] = (await made(api, queue, in_bucket))["outputs"]
    assert output["url"].startswith(f"{public}/")
    assert (await http.get(output["url"])).status_code == 200
    assert (await http.get(output["url"].replace("localhost", "127.0.0.1"))).status_code == 403  # it is signed


async def made(api: httpx.AsyncClient, queue: Queue, settings: Settings) -> dict[str, Any]:
    worker = FakeWorker(queue, Artifacts.open(settings))
    job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()
    [claimed] = await claim(queue, worker.name, "shapes-flux", 1, 1)
    await worker.finish(claimed)
    return dict((await api.get(f"/v1/jobs/{job['id']}")).json())


async def test_a_picture_to_start_from_reaches_the_worker_by_the_bucket(in_bucket: Settings, queue: Queue) -> None:
    artifacts = Artifacts.open(in_bucket)
    worker = FakeWorker(queue, artifacts)
    await queue.registry.announce(worker.name, ["shapes-flux"], 60)
    sent = Image.new("RGB", (64, 64), "red")
    async with serving(in_bucket) as api:
        files = {"image": ("a.png", png(sent))}
        asking = asyncio.create_task(api.post("/v1/images/edits", files=files, data={"prompt": "a shape"}))
        [job] = await claim(queue, worker.name, "shapes-flux", 1, 10)
        found = Image.open(io.BytesIO(await artifacts.read(job.request.inputs[0].name)))
        assert found.getcolors() == sent.getcolors()
        assert list(in_bucket.data_dir.rglob("*.png")) == []
        await worker.finish(job)
        assert (await asking).status_code == 200


async def test_the_sweep_takes_what_is_too_old_and_an_artifact_alone(store: Artifacts, in_bucket: Settings) -> None:
    names = [artifact_name("job_1", index, "png") for index in range(3)]
    for name in names:
        await store.save(name, b"x")
    bucket = open_store(in_bucket, 10)
    await obstore.put_async(bucket, "someone's.txt", b"x")
    assert await store.sweep() == 0
    at_once = Artifacts.open(in_bucket.model_copy(update={"retention_s": -5.0}))
    assert await at_once.sweep() == 3
    assert [each["path"] async for some in obstore.list(bucket) for each in some] == ["someone's.txt"]


def test_a_process_ends_in_order_after_any_call(store: Artifacts, in_bucket: Settings, server: s3.S3) -> None:
    asyncio.run(store.save(last_call.STORED, last_call.DATA))
    environment = {
        "NAG_ARTIFACTS_URL": str(in_bucket.artifacts_url),
        "NAG_ARTIFACTS_OPTIONS": json.dumps(server.options),
    }
    assert last_call.failures(environment) == {}


async def test_a_server_without_bulk_deletes_is_enough(
    in_bucket: Settings, server: s3.S3, queue: Queue, http: httpx.AsyncClient
) -> None:
    async with s3.without_bulk_deletes(server) as (endpoint, refused):
        assert (await http.post(f"{endpoint}/{s3.BUCKET}?delete")).status_code == 501
        options = {**server.options, "endpoint": endpoint}
        settings = Settings(**{**in_bucket.model_dump(), "artifacts_options": options})
        store, names = Artifacts.open(settings), [artifact_name("job_1", index, "png") for index in range(3)]
        for name in names:
            await store.save(name, b"x")
        await store.delete(names[0])
        assert await Artifacts.open(settings.model_copy(update={"retention_s": -5.0})).sweep() == 2
        async with serving(settings) as api:
            job = await made(api, queue, settings)
            assert (await api.delete(f"/v1/jobs/{job['id']}")).status_code == 200
        assert [each["path"] async for some in obstore.list(open_store(settings, 10)) for each in some] == []
        assert len(refused) == 1  # the one above


async def test_a_delete_that_the_bucket_refuses_can_be_asked_for_again(
    in_bucket: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(in_bucket) as api:
        job = await made(api, queue, in_bucket)

        async def fail(self: Artifacts, *names: str) -> None:
            raise ArtifactsError("the bucket is away")

        with monkeypatch.context() as away:
            away.setattr(Artifacts, "delete", fail)
            assert (await api.delete(f"/v1/jobs/{job['id']}")).status_code == 503
        assert (await api.delete(f"/v1/jobs/{job['id']}")).status_code == 200
        assert [each["path"] async for some in obstore.list(open_store(in_bucket, 10)) for each in some] == []


async def test_a_bucket_that_is_not_there_or_not_ours_is_said_in_a_line(in_bucket: Settings, server: s3.S3) -> None:
    wrong = {**server.options, "secret_access_key": "guessed"}
    nowhere = {**server.options, "endpoint": "http://127.0.0.1:9"}
    for options in (wrong, nowhere):
        settings = Settings(**{**in_bucket.model_dump(), "artifacts_options": options})
        with pytest.raises(ArtifactsError) as caught:
            await Artifacts.open(settings, patience_s=0.5).save(artifact_name("a", 0, "png"), b"x")
        assert "\n" not in str(caught.value)
        assert "guessed" not in str(caught.value)


def test_a_browser_plays_a_video_by_its_link_until_it_expires(
    store: Artifacts, in_bucket: Settings, tmp_path: Path
) -> None:
    frames = np.repeat(np.linspace(0, 255, 9, dtype=np.uint8), 48 * 64 * 3).reshape(9, 48, 64, 3)
    name = artifact_name("job_1", 0, "mp4")
    with encode_mp4(frames, 16) as file:
        asyncio.run(store.save(name, file))
    bucket = open_store(in_bucket, 10)
    assert isinstance(bucket, Bucket)
    obstore.put(bucket, "page.html", b"<!doctype html>", attributes={"Content-Type": "text/html"})
    with browser.playing(tmp_path / "profile") as page:
        # A page of the same origin, so that the video's pixels may be read.
        page.open(obstore.sign(bucket, "GET", "page.html", timedelta(seconds=600)))
        seen = page.play(str(store.signed_url(name, 600)))
        assert (seen["width"], seen["height"], seen["corrupted"]) == (64, 48, 0)
        assert np.abs(np.frombuffer(seen["pixels"], np.uint8).reshape(48, 64, 4)[..., :3].astype(int) - 255).max() < 8
        brief = str(store.signed_url(name, 1))
        while page.status(brief) == 200:
            time.sleep(0.2)
        assert page.status(brief) == 403
        assert "error" in page.try_to_play(brief)
