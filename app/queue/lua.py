"""The transitions in `scripts/`, each one atomic."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.queue import counts, keys

__all__ = ["Scripts"]

_FOLDER = Path(__file__).parent / "scripts"
SHARED = ("counts", "common")  # put before each of the others


class Scripts:
    """Runs them by name. `retention_ms` is how long they keep a job that has ended."""

    def __init__(self, redis: Redis, retention_ms: int) -> None:
        shared = "\n".join((_FOLDER / f"{name}.lua").read_text() for name in SHARED)
        header = f"{keys.lua_header()}\n{counts.lua_header()}\nlocal RETENTION_MS = {retention_ms}\n{shared}"
        self._scripts = {
            path.stem: redis.register_script(f"{header}\n{path.read_text()}")
            for path in _FOLDER.glob("*.lua")
            if path.stem not in SHARED
        }

    @property
    def names(self) -> Set[str]:
        return self._scripts.keys()

    async def run(self, name: str, *arguments: str | int) -> Any:
        """The script's answer. Raises redis.exceptions.RedisError."""
        # The key declared routes the script: every other one it touches carries the same hash tag.
        return await self._scripts[name](keys=[keys.LEASES], args=arguments)
