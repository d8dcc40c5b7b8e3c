"""Registry of uploaded LoRAs: what each tenant may use, and which jobs need it."""

from __future__ import annotations

from app.catalog import UploadedLora
from app.errors import Conflict, NotFound
from app.logs import Log
from app.queue.lua import Scripts

__all__ = ["Loras"]

ALL_TENANTS = ""
_log = Log("queue")


#: Leftovers that one call returns.
LEFTOVERS_A_CALL = 100


class Loras:
    """Their files are the caller's to store and to remove: `note_file` before one is stored, `forget_file` after it was
    removed. What is cut off in between is a leftover.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def note_file(self, version: str) -> None:
        """Notes that the file of a version is about to be stored; `add` strikes the note off."""
        await self._scripts.run("lora_note", version)

    async def forget_file(self, version: str) -> None:
        """Strikes off the note of a file that was removed, or was never stored."""
        await self._scripts.run("lora_forget", version)

    async def leftovers(self, older_than_s: float) -> list[str]:
        """The versions that have not been registered for so long, but whose files may be stored; the oldest first."""
        versions: list[str] = await self._scripts.run("lora_leftovers", round(older_than_s * 1000), LEFTOVERS_A_CALL)
        return versions

    async def add(self, lora: UploadedLora, *, most: int, most_bytes: int) -> None:
        """Registers one whose file is stored. Raises Conflict for an id that is taken, and for a tenant that has
        `most` LoRAs or `most_bytes` of them.
        """
        answer = await self._scripts.run(
            "lora_add", lora.tenant or ALL_TENANTS, lora.id, lora.use_id, lora.model_dump_json(), lora.size_bytes,
            most, most_bytes, lora.version,
        )  # fmt: skip
        if answer == "taken":
            raise Conflict(f"id: there is a LoRA {lora.id!r} already; delete it first", param="id", code="lora_exists")
        if answer != "added":
            limit = f"{most} LoRAs" if answer == "count" else f"{most_bytes} bytes of LoRAs"
            raise Conflict(f"the limit is {limit}; delete one first", code="lora_limit")
        _log.info("lora_added", lora=lora.use_id, base=lora.base, bytes=lora.size_bytes)

    async def visible(self, tenant: str) -> list[UploadedLora]:
        """Those of all tenants, and then its own."""
        records = await self._scripts.run("lora_list", tenant)
        loras = [UploadedLora.model_validate_json(record) for record in records]
        return sorted(loras, key=lambda lora: (lora.tenant is not None, lora.id))

    async def find(self, use_id: str) -> UploadedLora | None:
        """By the id that jobs name it by, whoever it belongs to."""
        record = await self._scripts.run("lora_get", use_id)
        return None if record is None else UploadedLora.model_validate_json(record)

    async def drop(self, lora: UploadedLora) -> None:
        """Strikes it off, and notes that its file is left over.

        Raises NotFound, and Conflict while jobs that have not ended need it.
        """
        answer, *more = await self._scripts.run("lora_drop", lora.tenant or ALL_TENANTS, lora.id)
        if answer == "unknown":
            raise NotFound(f"no LoRA {lora.id!r}", code="lora_not_found")
        if answer == "needed":
            jobs = "1 job needs" if more[0] == 1 else f"{more[0]} jobs need"
            raise Conflict(f"{jobs} the LoRA {lora.id!r}; delete it when they have ended", code="lora_in_use")
        _log.info("lora_dropped", lora=lora.use_id)
