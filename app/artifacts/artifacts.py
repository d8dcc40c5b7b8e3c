"""Reads and writes stored files, whole or in streams."""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, Self, TypeVar, cast

import obstore

from app.artifacts.disk_file import DiskFile
from app.artifacts.naming import check_name, is_input, is_name, is_upload, media_type
from app.artifacts.store_factory import (
    Bucket,
    Store,
    artifacts_folder,
    open_signing_store,
    open_store,
    translate_store_errors,
)
from app.settings import Settings

__all__ = ["Artifacts", "StoredFile"]

#: A reader gets this much at a time; only this and the socket's buffer are held of a file.
CHUNK_BYTES = 256 * 2**10
#: A larger file is sent in parts of this size, a few at a time; S3 takes no smaller ones, and 10,000 of them.
PART_BYTES, PARTS_AT_ONCE = 8 * 2**20, 4
#: Calls to the store that run at the same time; further calls queue.
CALLS_AT_ONCE = 32
#: A file that a local writer has not renamed yet.
_HALF_WRITTEN = re.compile(r"(.+)#[0-9]+")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class StoredFile:
    """Facts of a stored file, known without reading it."""

    size_bytes: int
    modified_at: datetime
    etag: str | None


class Artifacts:
    """One store. Every method raises ValueError for a name of another form than `artifact_name`'s, ArtifactsError if
    the store fails, and FileNotFoundError for a file that never was or whose retention has passed.

    Every call runs obstore's blocking functions in a thread. Its coroutines are avoided: a thread of its Rust runtime
    delivers their results and may still be inside the interpreter when the awaiting task goes on. If the process ends
    at that moment, Python (before 3.14) kills that thread, and the Rust runtime aborts the process.
    """

    def __init__(
        self, store: Store, signing: Bucket | None, folder: Path | None, retention_s: float,
        waiting_s: float, upload_s: float,
    ) -> None:  # fmt: skip
        self._store = store
        self._signing = signing
        self._folder = folder
        self._retention_s = retention_s
        self._waiting_s = waiting_s
        self._upload_s = upload_s
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="artifacts")
        self._calls: set[Future[Any]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a call is running, one whose task was cancelled included. The interpreter waits for it at its end."""
        return bool(self._calls)

    @classmethod
    def open(cls, settings: Settings, patience_s: float = 10.0) -> Self:
        """Opens the store of the settings. Requests to a bucket that does not answer are retried for `patience_s`."""
        store, folder = open_store(settings, patience_s), artifacts_folder(settings)
        signing = open_signing_store(settings, store, patience_s)
        return cls(store, signing, folder, settings.retention_s, settings.deadline_max_s, settings.file_retention_s)

    async def save(self, name: str, data: bytes | BinaryIO) -> int:
        """Stores the data whole or not at all; returns its size in bytes. A file is read from its start, in parts."""
        # obstore reads a file in the calling thread, but releases a bytes object in a thread of its Rust runtime.
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        # A bucket sends these headers to clients that follow a link into it. A folder keeps none; the API sends them.
        headers = {"Content-Type": media_type(check_name(name)), "Content-Disposition": f'inline; filename="{name}"'}
        size_bytes = file.seek(0, 2)
        file.seek(0)
        await self._call(
            obstore.put, self._store, name, file, attributes=None if self._folder else headers,
            chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE,
        )  # fmt: skip
        if self._folder is not None:
            with suppress(FileNotFoundError):  # deleted already
                # Only users who may read the folder may read the file.
                (self._folder / name).chmod(0o600 | self._folder.stat().st_mode & 0o044)
        return size_bytes

    async def find(self, name: str) -> StoredFile:
        """Returns its size, date and ETag."""
        meta = await self._call(obstore.head, self._store, check_name(name))
        return StoredFile(meta["size"], meta["last_modified"], meta["e_tag"])

    async def read(self, name: str) -> bytes:
        """Returns all of its bytes: for an image, whose size is bounded."""
        return await self._call(lambda path: bytes(obstore.get(self._store, path).bytes()), check_name(name))

    async def open_file(self, name: str) -> BinaryIO:
        """Opens it for reading; a bucket's is copied to a temporary file first. Its bytes stay on the disk."""
        return await self._call(self._open_file, check_name(name))

    def _open_file(self, name: str) -> BinaryIO:
        if self._folder is not None:
            return cast(BinaryIO, DiskFile(os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)))
        with tempfile.TemporaryFile() as file:
            for chunk in obstore.get(self._store, name).stream(CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            return cast(BinaryIO, DiskFile(os.dup(file.fileno())))

    async def stream(self, name: str, first: int, end: int) -> AsyncIterator[bytes]:
        """Yields its bytes from `first` up to `end`, read on demand."""
        result = await self._call(obstore.get, self._store, check_name(name), options={"range": (first, end)})
        chunks = iter(result.stream(CHUNK_BYTES))
        while chunk := await self._call(lambda: bytes(next(chunks, b""))):
            yield chunk

    async def delete(self, *names: str) -> None:
        """Deletes the files; one that is gone is no error."""
        for name in map(check_name, names):
            with suppress(FileNotFoundError):
                await self._call(obstore.delete, self._store, name)

    def signed_url(self, name: str, lifetime_s: float) -> str | None:
        """Returns a link that the bucket itself serves for so long; None for a folder."""
        if self._signing is not None:
            with translate_store_errors():
                return obstore.sign(self._signing, "GET", check_name(name), timedelta(seconds=lifetime_s))
        return None

    async def sweep(self) -> int:
        """Removes files older than the retention, half-written ones included; returns how many.

        Inputs of a job stay for as long as it may wait. Files with other names are kept: a bucket may hold other data.
        """
        return await self._call(self._sweep_bucket if self._folder is None else self._sweep_folder)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the function in a thread, to its end even if the awaiting task is cancelled."""
        call = self._threads.submit(function, *args, **kwargs)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        with translate_store_errors():
            return await asyncio.wrap_future(call)

    def _sweep_bucket(self) -> int:
        removed = 0
        for files in obstore.list(self._store):
            names = [file["path"] for file in files if self._is_over(file["path"], file["last_modified"].timestamp())]
            if names:
                obstore.delete(self._store, names)
            removed += len(names)
        return removed

    def _sweep_folder(self) -> int:
        assert self._folder is not None
        removed = 0
        for path in self._folder.iterdir():
            half_written = _HALF_WRITTEN.fullmatch(path.name)
            with suppress(FileNotFoundError):  # another process sweeps as well
                if self._is_over(half_written[1] if half_written else path.name, path.stat().st_mtime):
                    path.unlink()
                    removed += 1
        return removed

    def _is_over(self, name: str, modified_at: float) -> bool:
        kept_s = max(self._retention_s, self._waiting_s) if is_input(name) else self._retention_s
        kept_s = self._upload_s if is_upload(name) else kept_s
        return is_name(name) and modified_at < time.time() - kept_s
