"""The produced files: a folder, one file an artifact, named after its job alone."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from app.formats import MEDIA_TYPES
from app.settings import Settings

__all__ = ["Artifacts", "artifact_name"]

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,80}}-[0-9]{{1,3}}\.({'|'.join(MEDIA_TYPES)})")


def artifact_name(job_id: str, index: int, output_format: str) -> str:
    """The one form of a name, `<job id>-<index>.<format>`."""
    return f"{job_id}-{index}.{output_format}"


class Artifacts:
    """A folder of artifacts. A name of any other form than `artifact_name`'s is a ValueError: no path comes in here."""

    def __init__(self, folder: Path, retention_s: float) -> None:
        self._folder = folder
        self._retention_s = retention_s
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def open(cls, settings: Settings) -> Artifacts:
        """The store in the data folder."""
        return cls(settings.data_folder / "artifacts", settings.retention_s)

    def path(self, name: str) -> Path:
        """Where the artifact lies, or would."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not an artifact's name: {name!r}")
        return self._folder / name

    async def save(self, name: str, data: bytes) -> None:
        """Store it whole or not at all; the same name again replaces it."""
        await asyncio.to_thread(_write, self.path(name), data)

    async def read(self, name: str) -> bytes:
        """Its bytes. Raises FileNotFoundError when it never was or its retention has passed."""
        return await asyncio.to_thread(self.path(name).read_bytes)

    async def delete(self, name: str) -> None:
        """Remove it; one that is gone is fine."""
        self.path(name).unlink(missing_ok=True)

    async def sweep(self) -> int:
        """Remove what is older than the retention, half-written files included; returns how many."""
        return await asyncio.to_thread(_sweep, self._folder, time.time() - self._retention_s)


def _write(path: Path, data: bytes) -> None:
    # Its own temporary name a writer: two workers may store the same artifact after a lost lease.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Not synced to the disk: the queue's own file is synced once a second, and a result is no safer than its job.
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path, oldest: float) -> int:
    removed = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps as well
            if path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
    return removed
