"""Limits of an API key, counted in Redis for all API processes together: requests per minute, and at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from app.asyncio_utils import cancel_and_wait
from app.errors import RateLimitExceeded
from app.queue.keys import Keys
from app.queue.scripts import Scripts

__all__ = ["ConcurrencyLimiter", "Rate", "RateLimiter"]

#: A process that died holds its slots for this long; one that lives renews them well before.
SLOT_MS = 30_000
RENEW_S = 10.0
#: A request under way is counted, even if its slot was given up meanwhile.
ANY = 10**9
#: It is not known when a slot comes free.
RETRY_S = 1


@dataclass(frozen=True)
class Rate:
    """`reset_s`: whole seconds until the oldest counted request is a minute old, and there is room for one more."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimiter:
    """A moving window: in no 60 seconds are there more requests than the limit."""

    def __init__(self, pool: ConnectionPool, keys: Keys) -> None:
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=keys.RATES,
            connection_pool=pool,  # type: ignore[arg-type]  # its options are annotated as plain values
        )
        self._limiter = MovingWindowRateLimiter(storage)

    async def take(self, key_id: str, kind: str, per_minute: int) -> Rate:
        """Counts one request of this kind, if it is allowed. Raises redis.exceptions.RedisError."""
        item = RateLimitItemPerMinute(per_minute)
        allowed = await self._limiter.hit(item, kind, key_id)
        reset_at, remaining = await self._limiter.get_window_stats(item, kind, key_id)
        return Rate(allowed, per_minute, max(0, remaining), max(1, math.ceil(reset_at - time.time())))


class ConcurrencyLimiter:
    """Slots for the requests that are under way."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    @asynccontextmanager
    async def hold(self, key_id: str, most: int) -> AsyncIterator[None]:
        """Holds one of the key's `most` slots. Raises RateLimitExceeded if all are taken."""
        slot = uuid4().hex
        if not await self._scripts.run("slot_acquire", key_id=key_id, slot=slot, most=most, ttl_ms=SLOT_MS):
            raise RateLimitExceeded(
                f"Too many concurrent requests for this API key (limit {most})", retry_after_s=RETRY_S
            )
        renewing = asyncio.create_task(self._renew(key_id, slot))
        try:
            yield
        finally:
            await cancel_and_wait(renewing)
            with suppress(RedisError):  # then it comes free by itself
                await self._scripts.run("slot_release", key_id=key_id, slot=slot)

    async def _renew(self, key_id: str, slot: str) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(RedisError):
                await self._scripts.run("slot_acquire", key_id=key_id, slot=slot, most=ANY, ttl_ms=SLOT_MS)
