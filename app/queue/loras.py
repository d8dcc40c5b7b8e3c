"""Registry of uploaded LoRAs: what each tenant may use, and which jobs need it."""

from __future__ import annotations

from app.catalog import UploadedLora
from app.errors import Conflict, NotFound
from app.logs import Log
from app.queue.lua import Scripts

__all__ = ["Loras"]

ALL_TENANTS = ""
_log = Log("queue")


class Loras:
    """Their files are the caller's to store and to remove."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def add(self, lora: UploadedLora, *, most: int, most_bytes: int) -> None:
        """Registers one whose file is stored. Raises Conflict for an id that is taken, and for a tenant that has
        `most` LoRAs or `most_bytes` of them.
        """
        answer = await self._scripts.run(
            "lora_add", lora.tenant or ALL_TENANTS, lora.id, lora.use_id, lora.model_dump_json(), lora.size_bytes,
            most, most_bytes,
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
        """Strikes it off. Raises NotFound, and Conflict while jobs that have not ended need it."""
        answer, *more = await self._scripts.run("lora_drop", lora.tenant or ALL_TENANTS, lora.id)
        if answer == "unknown":
            raise NotFound(f"no LoRA {lora.id!r}", code="lora_not_found")
        if answer == "needed":
            jobs = "1 job needs" if more[0] == 1 else f"{more[0]} jobs need"
            raise Conflict(f"{jobs} the LoRA {lora.id!r}; delete it when they have ended", code="lora_in_use")
        _log.info("lora_dropped", lora=lora.use_id)
