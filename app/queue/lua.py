"""The transitions in `scripts/`, each one atomic."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.queue import keys

__all__ = ["Scripts"]

_FOLDER = Path(__file__).parent / "scripts"


class Scripts:
    """Runs them by name. `retention_ms` is how long they keep a job that has ended."""

    def __init__(self, redis: Redis, retention_ms: int) -> None:
        common = (_FOLDER / "common.lua").read_text()
        header = f"{keys.lua_header()}\nlocal RETENTION_MS = {retention_ms}\n{common}"
        self._scripts = {
            path.stem: redis.register_script(f"{header}\n{path.read_text()}")
            for path in _FOLDER.glob("*.lua")
            if path.stem != "common"
        }

    @property
    def names(self) -> Set[str]:
        return self._scripts.keys()

    async def run(self, name: str, *arguments: str | int) -> Any:
        """The script's answer. Raises redis.exceptions.RedisError."""
        # The key declared routes the script: every other one it touches carries the same hash tag.
        return await self._scripts[name](keys=[keys.LEASES], args=arguments)
