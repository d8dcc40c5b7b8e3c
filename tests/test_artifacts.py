from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from app.artifacts import Artifacts, artifact_name

NAME = artifact_name("job_0a-b", 3, "png")


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def test_saved_whole_read_deleted(tmp_path: Path) -> None:
    store = Artifacts(tmp_path / "new" / "folder", retention_s=60)
    await asyncio.gather(*(store.save(NAME, b"x" * 100_000) for _ in range(8)))
    assert await store.read(NAME) == b"x" * 100_000
    assert names(tmp_path / "new" / "folder") == ["job_0a-b-3.png"]
    await store.delete(NAME)
    await store.delete(NAME)
    with pytest.raises(FileNotFoundError):
        await store.read(NAME)


@pytest.mark.parametrize(
    "name", ["../a-0.png", "/etc/passwd", "a.png", "a-0.exe", "a-0.png\n", "a/b-0.png", "", "-0.png", "a-0000.png"]
)
async def test_no_other_name_is_touched(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not an artifact's name"):
        await Artifacts(tmp_path, 60).save(name, b"")
    assert not names(tmp_path)


async def test_the_sweep_takes_what_is_too_old_alone(tmp_path: Path) -> None:
    store = Artifacts(tmp_path, retention_s=60)
    for index in range(3):
        await store.save(artifact_name("a", index, "webp"), b"x")
    (tmp_path / "a-9.png.0000.tmp").write_bytes(b"half")
    old = time.time() - 100
    for name in ("a-1.webp", "a-9.png.0000.tmp"):
        os.utime(tmp_path / name, (old, old))
    assert await store.sweep() == 2
    assert names(tmp_path) == ["a-0.webp", "a-2.webp"]
