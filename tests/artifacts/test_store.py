from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from stat import S_IMODE

import pytest

from app.artifacts import Artifacts, ArtifactsError, artifact_name, input_name
from app.jobs import InputRole
from app.settings import Settings
from tests.artifacts import last_call

OLD_S = 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "artifacts"


@pytest.fixture
def store(folder: Path) -> Artifacts:
    return Artifacts.open(Settings(data_dir=folder.parent, retention_s=60))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def test_saved_whole_read_in_parts_deleted(store: Artifacts, folder: Path) -> None:
    name, data = artifact_name("job_0a-b", 3, "png"), os.urandom(700_001)
    assert await asyncio.gather(*(store.save(name, data) for _ in range(8))) == [len(data)] * 8
    assert await store.read(name) == data
    assert (await store.find(name)).size_bytes == len(data)
    assert b"".join([each async for each in store.stream(name, 5, 700_000)]) == data[5:700_000]
    assert names(folder) == [name]
    await store.delete(name)
    await store.delete(name)
    for gone in (store.read(name), store.find(name)):
        with pytest.raises(FileNotFoundError):
            await gone


async def test_an_open_file_is_read_as_it_is_needed(store: Artifacts) -> None:
    name, copy, data = artifact_name("a", 0, "mp4"), artifact_name("b", 0, "mp4"), os.urandom(700_001)
    await store.save(name, data)
    file = await store.open_file(name)
    await store.delete(name)  # it stays readable
    assert (file.read(5), file.tell()) == (data[:5], 5)
    assert file.seek(-3, os.SEEK_END) == len(data) - 3
    assert (file.read(10), file.read(10)) == (data[-3:], b"")
    assert (file.seek(0), file.read()) == (0, data)
    assert await store.save(copy, file) == len(data)
    assert await store.read(copy) == data
    descriptors = names(Path("/proc/self/fd"))
    del file  # nobody closes it
    assert len(names(Path("/proc/self/fd"))) == len(descriptors) - 1
    with pytest.raises(FileNotFoundError):
        await store.open_file(name)


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o600), (0o755, 0o644), (0o750, 0o640)])
def test_a_file_is_as_private_as_its_folder(tmp_path: Path, folder: Path, mode: int | None, expected: int) -> None:
    if mode is not None:  # an operator's own folder
        folder.mkdir(parents=True)
        folder.chmod(mode)
    store, name = Artifacts.open(Settings(data_dir=folder.parent)), artifact_name("a", 0, "png")
    asyncio.run(store.save(name, b"x"))
    assert S_IMODE(folder.stat().st_mode) == (mode or 0o700)
    assert S_IMODE((folder / name).stat().st_mode) == expected


async def test_a_file_is_stored_from_its_start(store: Artifacts, tmp_path: Path) -> None:
    name = artifact_name("a", 0, "mp4")
    with (tmp_path / "video").open("w+b") as file:
        file.write(b"0123456789")  # and stands at its end
        assert await store.save(name, file) == 10
    assert await store.read(name) == b"0123456789"


def test_no_two_writers_of_a_job_have_one_name() -> None:
    assert len({artifact_name("a", 0, "png") for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "name",
    [
        "../a-0-01234567.png", "/etc/passwd", "a-0.png", "a-0-01234567.exe", "a-0-01234567.png\n", "a/b-0-01234567.png",
        "", "-0-01234567.png", "a-0000-01234567.png", "a-0-0123456g.png", "a-0-01234567.png#1",
    ],
)  # fmt: skip
async def test_no_other_name_is_touched(store: Artifacts, folder: Path, name: str) -> None:
    calls = (
        store.save(name, b""),
        store.read(name),
        store.find(name),
        store.delete(name),
        anext(store.stream(name, 0, 1)),
    )
    for call in calls:
        with pytest.raises(ValueError, match="not an artifact's name"):
            await call
    assert not names(folder)


async def test_the_sweep_takes_what_is_too_old_and_an_artifact_alone(store: Artifacts, folder: Path) -> None:
    fresh, old = (artifact_name("a", index, "webp") for index in range(2))
    for name in (fresh, old):
        await store.save(name, b"x")
    for name in (f"{old}#1", f"{fresh}#1", "someone's.txt"):
        (folder / name).write_bytes(b"half")
    then = time.time() - OLD_S
    for name in (old, f"{old}#1", "someone's.txt"):
        os.utime(folder / name, (then, then))
    assert await store.sweep() == 2
    assert names(folder) == sorted([fresh, f"{fresh}#1", "someone's.txt"])


async def test_what_a_job_starts_from_outlasts_the_jobs_wait(folder: Path) -> None:
    store = Artifacts.open(Settings(data_dir=folder.parent, retention_s=60, deadline_max_s=2 * OLD_S))
    waiting, ended = input_name("job_0a-b", InputRole.IMAGE, 0), input_name("job_0a-b", InputRole.MASK, 1)
    for name, age_s in ((waiting, OLD_S), (ended, 3 * OLD_S)):
        await store.save(name, b"x")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert await store.sweep() == 1
    assert names(folder) == [waiting]


def test_a_process_ends_in_order_after_any_call(store: Artifacts, folder: Path) -> None:
    asyncio.run(store.save(last_call.STORED, last_call.DATA))
    assert last_call.failures({"NAG_DATA_DIR": str(folder.parent)}) == {}


def test_a_store_that_fails_says_so_in_a_line(store: Artifacts, folder: Path) -> None:
    folder.rmdir()
    folder.touch()
    with pytest.raises(ArtifactsError) as caught:
        asyncio.run(store.save(artifact_name("a", 0, "png"), b"x"))
    assert "\n" not in str(caught.value)


def test_a_folder_may_be_named_by_its_url(tmp_path: Path) -> None:
    Artifacts.open(Settings(data_dir=tmp_path / "data", artifacts_url=f"file://{tmp_path}/some%20where"))
    assert (tmp_path / "some where").is_dir()


def test_a_bucket_without_its_keys_is_refused_in_a_line(tmp_path: Path) -> None:
    options = {"access_key_id": "half"}
    with pytest.raises(ArtifactsError, match="SecretAccessKey") as caught:
        Artifacts.open(Settings(data_dir=tmp_path, artifacts_url="s3://bucket", artifacts_options=options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
