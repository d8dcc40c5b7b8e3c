"""How many requests of a key are under way, in all API processes together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from redis.exceptions import RedisError

from app.errors import RateLimited
from app.queue.cancel import end
from app.queue.lua import Scripts

__all__ = ["Slots"]

#: A process that died holds its slots for this long; one that lives renews them well before.
SLOT_MS = 30_000
RENEW_S = 10.0
#: What is under way is counted, even where its slot was given up meanwhile.
ANY = 10**9
#: When one comes free is not known.
RETRY_S = 1


class Slots:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    @asynccontextmanager
    async def held(self, key_id: str, most: int) -> AsyncIterator[None]:
        """One of the key's `most` slots. Raises RateLimited when all are taken."""
        slot = uuid4().hex
        if not await self._scripts.run("enter", key_id, slot, most, SLOT_MS):
            raise RateLimited(f"{most} requests of this key are under way, its most at once", retry_after_s=RETRY_S)
        renewing = asyncio.create_task(self._renew(key_id, slot))
        try:
            yield
        finally:
            await end(renewing)
            with suppress(RedisError):  # then it comes free by itself
                await self._scripts.run("leave", key_id, slot)

    async def _renew(self, key_id: str, slot: str) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(RedisError):
                await self._scripts.run("enter", key_id, slot, ANY, SLOT_MS)
