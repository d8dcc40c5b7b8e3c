"""The records of uploaded files, by tenant; their bytes are in the artifact store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.errors import RateLimited
from app.queue.lua import Scripts

__all__ = ["FileRecords", "UploadedFile"]

#: The most files of a tenant.
FILES_MAX = 1000


@dataclass(frozen=True)
class UploadedFile:
    """A file that its tenant can name in requests until it expires. Times are Unix seconds.

    name: in the artifact store. filename, purpose: as the client sent them.
    """

    id: str
    name: str
    filename: str
    purpose: str
    bytes: int
    created_at: float = 0.0
    expires_at: float = 0.0


class FileRecords:
    """Raises redis.exceptions.RedisError when the server cannot be reached."""

    def __init__(self, scripts: Scripts, most_bytes: int) -> None:
        self._scripts = scripts
        self._most_bytes = most_bytes

    async def add(self, tenant: str, file: UploadedFile, kept_s: float) -> UploadedFile:
        """Notes the file and returns it with its times. Raises RateLimited if the tenant has no room for it."""
        record = {name: getattr(file, name) for name in ("id", "name", "filename", "purpose", "bytes")}
        answer = await self._scripts.run(
            "file_add", tenant, file.id, json.dumps(record), file.bytes, round(kept_s * 1000), FILES_MAX,
            self._most_bytes,
        )  # fmt: skip
        if answer == "full":
            message = f"file: at most {FILES_MAX} files and {self._most_bytes} bytes are kept; delete some"
            raise RateLimited(message, param="file", code="files_full")
        return _read(answer)

    async def find(self, tenant: str, file_id: str) -> UploadedFile | None:
        """The tenant's file; None if there is none of this id, or no longer."""
        found = await self._scripts.run("file_list", tenant, file_id)
        return _read(found[0]) if found else None

    async def list(self, tenant: str) -> list[UploadedFile]:
        """The tenant's files, newest first."""
        found = [_read(text) for text in await self._scripts.run("file_list", tenant, "")]
        return sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)

    async def drop(self, tenant: str, file_id: str) -> None:
        """Forgets it."""
        await self._scripts.run("file_drop", tenant, file_id)


def _read(text: str) -> UploadedFile:
    record: dict[str, Any] = json.loads(text)
    times = {f"{name}_at": record.pop(f"{name}_ms") / 1000 for name in ("created", "expires")}
    return UploadedFile(**record, **times)
