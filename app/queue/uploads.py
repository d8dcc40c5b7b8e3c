"""Registries of uploaded files and LoRAs, by tenant; their bytes are in the artifact store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app.catalog import UploadedLora
from app.errors import Conflict, NotFound, RateLimitExceeded
from app.logs import Log
from app.queue.scripts import Scripts

__all__ = ["FileRegistry", "LoraRegistry", "UploadedFile"]

#: The tenant of a LoRA that every tenant may use.
ALL_TENANTS = ""
#: Leftovers that one call returns.
LEFTOVERS_A_CALL = 100
#: The most files of a tenant.
FILES_MAX = 1000
_log = Log("queue")


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


class FileRegistry:
    """The uploaded files of each tenant. Raises redis.exceptions.RedisError if the server cannot be reached."""

    def __init__(self, scripts: Scripts, most_bytes: int) -> None:
        self._scripts = scripts
        self._most_bytes = most_bytes

    async def add(self, tenant: str, file: UploadedFile, kept_s: float) -> UploadedFile:
        """Registers the file; returns it with its times. Raises RateLimitExceeded if the tenant has no room for it."""
        record = {name: getattr(file, name) for name in ("id", "name", "filename", "purpose", "bytes")}
        answer = await self._scripts.run(
            "file_add", tenant=tenant, record=record, ttl_ms=round(kept_s * 1000), most=FILES_MAX,
            most_bytes=self._most_bytes,
        )  # fmt: skip
        if answer == "full":
            message = f"file: the limit is {FILES_MAX} files and {self._most_bytes} bytes; delete some"
            raise RateLimitExceeded(message, param="file", code="files_full")
        return _read(answer)

    async def find(self, tenant: str, file_id: str) -> UploadedFile | None:
        """Returns the tenant's file; None if it never was or has expired."""
        records = await self._scripts.run("file_list", tenant=tenant, id=file_id)
        return _read(records[0]) if records else None

    async def list(self, tenant: str) -> list[UploadedFile]:
        """Returns the tenant's files, the newest first."""
        files = [_read(text) for text in await self._scripts.run("file_list", tenant=tenant)]
        return sorted(files, key=lambda file: (file.created_at, file.id), reverse=True)

    async def drop(self, tenant: str, file_id: str) -> None:
        """Removes a file from the registry."""
        await self._scripts.run("file_drop", tenant=tenant, id=file_id)


def _read(text: str) -> UploadedFile:
    record: dict[str, Any] = json.loads(text)
    times = {f"{name}_at": record.pop(f"{name}_ms") / 1000 for name in ("created", "expires")}
    return UploadedFile(**record, **times)


class LoraRegistry:
    """The uploaded LoRAs of each tenant, and which jobs need them.

    The caller stores and removes their files: `note_file` before one is stored, `forget_file` after it was removed. If
    it is interrupted in between, the file is a leftover.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def note_file(self, version: str) -> None:
        """Notes that the file of a version is about to be stored; `add` removes the note."""
        await self._scripts.run("lora_note", version=version)

    async def forget_file(self, version: str) -> None:
        """Removes the note of a file that was removed, or was never stored."""
        await self._scripts.run("lora_forget", version=version)

    async def leftovers(self, older_than_s: float) -> list[str]:
        """Returns versions, the oldest first, that are unregistered for so long and whose files may be stored."""
        versions: list[str] = await self._scripts.run(
            "lora_leftovers", older_than_ms=round(older_than_s * 1000), most=LEFTOVERS_A_CALL
        )
        return versions

    async def add(self, lora: UploadedLora, *, most: int, most_bytes: int) -> None:
        """Registers a LoRA whose file is stored.

        Raises Conflict for an id that is taken, and for a tenant without room: `most` LoRAs, `most_bytes`.
        """
        answer = await self._scripts.run(
            "lora_add", tenant=lora.tenant or ALL_TENANTS, id=lora.id, use_id=lora.use_id, version=lora.version,
            record=lora.model_dump_json(), bytes=lora.size_bytes, most=most, most_bytes=most_bytes,
        )  # fmt: skip
        if answer == "taken":
            raise Conflict(f"id: there is a LoRA {lora.id!r} already; delete it first", param="id", code="lora_exists")
        if answer != "added":
            limit = f"{most} LoRAs" if answer == "count" else f"{most_bytes} bytes of LoRAs"
            raise Conflict(f"the limit is {limit} per tenant; delete one first", code="lora_limit")
        _log.info("lora_added", lora=lora.use_id, base=lora.base, bytes=lora.size_bytes)

    async def visible(self, tenant: str) -> list[UploadedLora]:
        """Returns the LoRAs that a tenant may use: those of all tenants, then its own."""
        records = await self._scripts.run("lora_list", tenant=tenant)
        loras = [UploadedLora.model_validate_json(record) for record in records]
        return sorted(loras, key=lambda lora: (lora.tenant is not None, lora.id))

    async def find(self, use_id: str) -> UploadedLora | None:
        """Finds a LoRA of any tenant by the id that jobs use."""
        record = await self._scripts.run("lora_get", use_id=use_id)
        return None if record is None else UploadedLora.model_validate_json(record)

    async def drop(self, lora: UploadedLora) -> None:
        """Removes a LoRA, and notes that its file is left over.

        Raises NotFound, and Conflict while jobs that have not ended need it.
        """
        answer, *more = await self._scripts.run("lora_drop", tenant=lora.tenant or ALL_TENANTS, id=lora.id)
        if answer == "unknown":
            raise NotFound(f"no LoRA {lora.id!r}", code="lora_not_found")
        if answer == "needed":
            jobs = "1 job needs" if more[0] == 1 else f"{more[0]} jobs need"
            raise Conflict(f"{jobs} the LoRA {lora.id!r}; delete it when they have ended", code="lora_in_use")
        _log.info("lora_dropped", lora=lora.use_id)
