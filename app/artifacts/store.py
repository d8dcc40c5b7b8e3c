"""Files in and out of a store, whole or in streams."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self

import obstore

from app.artifacts import places
from app.artifacts.errors import translated
from app.artifacts.names import checked, is_input, is_name, media_type
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

    def __init__(self, store: places.Store, folder: Path | None, retention_s: float, waiting_s: float) -> None:
        self._store = store
        self._folder = folder
        self._retention_s = retention_s
        self._waiting_s = waiting_s

    @classmethod
    def open(cls, settings: Settings, patience_s: float = 10.0) -> Self:
        """The store of the settings. A bucket that does not answer is asked again for `patience_s`."""
        store, folder = places.open_store(settings, patience_s), places.folder(settings)
        return cls(store, folder, settings.retention_s, settings.deadline_max_s)

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
        """Remove what is older than the retention, half-written files included; returns how many. What a job starts
        from stays for as long as it may wait. What is not named as an artifact is left: a bucket may hold other things.
        """
        if self._folder is not None:
            return await asyncio.to_thread(self._sweep_folder, self._folder)
        removed = 0
        with translated():
            async for some in obstore.list(self._store):
                names = [
                    each["path"] for each in some if self._is_over(each["path"], each["last_modified"].timestamp())
                ]
                if names:
                    await obstore.delete_async(self._store, names)
                removed += len(names)
        return removed

    def _sweep_folder(self, folder: Path) -> int:
        removed = 0
        for path in folder.iterdir():
            half = _HALF_WRITTEN.fullmatch(path.name)
            with suppress(FileNotFoundError):  # another process sweeps as well
                if self._is_over(half[1] if half else path.name, path.stat().st_mtime):
                    path.unlink()
                    removed += 1
        return removed

    def _is_over(self, name: str, modified_at: float) -> bool:
        kept_s = max(self._retention_s, self._waiting_s) if is_input(name) else self._retention_s
        return is_name(name) and modified_at < time.time() - kept_s
