"""Files in and out of a store, whole or in streams."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self

import obstore

from app.artifacts import places
from app.artifacts.errors import translated
from app.artifacts.names import checked, is_name, media_type
from app.settings import Settings

__all__ = ["Artifacts", "Stored"]

#: What a reader gets at a time; with what waits in its socket, all that is held of a file.
CHUNK_BYTES = 256 * 2**10
#: A larger file is sent in parts of this size, a few at a time; S3 takes no smaller ones, and 10,000 of them.
PART_BYTES, PARTS_AT_ONCE = 8 * 2**20, 4
#: A file that a local writer has not renamed yet.
_HALF_WRITTEN = re.compile(r"(.+)#[0-9]+")


@dataclass(frozen=True)
class Stored:
    """What is known of a file without reading it."""

    size_bytes: int
    modified_at: datetime
    etag: str | None


class Artifacts:
    """One store. A name of any other form than `artifact_name`'s is a ValueError; a store that fails, ArtifactsError;
    a file that never was or whose retention has passed, FileNotFoundError.
    """

    def __init__(self, store: places.Store, folder: Path | None, retention_s: float) -> None:
        self._store = store
        self._folder = folder
        self._retention_s = retention_s

    @classmethod
    def open(cls, settings: Settings, patience_s: float = 10.0) -> Self:
        """The store of the settings. A bucket that does not answer is asked again for `patience_s`."""
        return cls(places.open_store(settings, patience_s), places.folder(settings), settings.retention_s)

    async def save(self, name: str, data: bytes | BinaryIO) -> int:
        """Store it whole or not at all; returns its size in bytes. A file is read from its start, in parts."""
        # A folder keeps no headers; the API says them. A bucket says them to whoever follows a link into it.
        headers = {"Content-Type": media_type(checked(name)), "Content-Disposition": f'inline; filename="{name}"'}
        size_bytes = len(data) if isinstance(data, bytes) else data.seek(0, 2)
        if not isinstance(data, bytes):
            data.seek(0)
        with translated():
            await obstore.put_async(
                self._store, name, data, attributes=None if self._folder else headers,
                chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE,
            )  # fmt: skip
        return size_bytes

    async def find(self, name: str) -> Stored:
        """Its size and date."""
        with translated():
            meta = await obstore.head_async(self._store, checked(name))
        return Stored(meta["size"], meta["last_modified"], meta["e_tag"])

    async def read(self, name: str) -> bytes:
        """All of its bytes: for a picture, whose size is bounded."""
        with translated():
            found = await obstore.get_async(self._store, checked(name))
            return bytes(await found.bytes_async())

    async def stream(self, name: str, first: int, end: int) -> AsyncIterator[bytes]:
        """Its bytes from `first` up to `end`, as they are asked for."""
        with translated():
            found = await obstore.get_async(self._store, checked(name), options={"range": (first, end)})
            async for chunk in found.stream(CHUNK_BYTES):
                yield bytes(chunk)

    async def delete(self, *names: str) -> None:
        """Remove them; one that is gone is fine."""
        for name in map(checked, names):
            with translated(), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, name)

    def signed_url(self, name: str, lifetime_s: float) -> str | None:
        """A link that the bucket itself answers for so long; None of a folder, which answers nobody."""
        if isinstance(self._store, places.Bucket):
            with translated():
                return obstore.sign(self._store, "GET", checked(name), timedelta(seconds=lifetime_s))
        return None

    async def sweep(self) -> int:
        """Remove what is older than the retention, half-written files included; returns how many. What is not named
        as an artifact is left: a bucket may hold other things.
        """
        oldest = time.time() - self._retention_s
        if self._folder is not None:
            return await asyncio.to_thread(_sweep_folder, self._folder, oldest)
        removed = 0
        with translated():
            async for some in obstore.list(self._store):
                old = [each["path"] for each in some if each["last_modified"] < datetime.fromtimestamp(oldest, UTC)]
                names = _named(old)
                if names:
                    await obstore.delete_async(self._store, names)
                removed += len(names)
        return removed


def _named(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if is_name(path)]


def _sweep_folder(folder: Path, oldest: float) -> int:
    removed = 0
    for path in folder.iterdir():
        half = _HALF_WRITTEN.fullmatch(path.name)
        if not is_name(half[1] if half else path.name):
            continue
        with suppress(FileNotFoundError):  # another process sweeps as well
            if path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
    return removed
