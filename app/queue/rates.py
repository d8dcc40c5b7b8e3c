"""How many requests a key has sent in the last minute, counted in Redis for all API processes together."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool

from app.queue.keys import Keys

__all__ = ["Rate", "Rates"]


@dataclass(frozen=True)
class Rate:
    """`reset_s`: whole seconds until the oldest counted request is a minute old, and there is room for one more."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int


class Rates:
    """A window that moves with the clock: in no 60 seconds are there more than the limit."""

    def __init__(self, pool: ConnectionPool, keys: Keys) -> None:
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=keys.RATES,
            connection_pool=pool,  # type: ignore[arg-type]  # its options are annotated as plain values
        )
        self._limiter = MovingWindowRateLimiter(storage)

    async def take(self, key_id: str, kind: str, per_minute: int) -> Rate:
        """Count one request of this kind, if it is allowed. Raises redis.exceptions.RedisError."""
        item = RateLimitItemPerMinute(per_minute)
        allowed = await self._limiter.hit(item, kind, key_id)
        reset_at, remaining = await self._limiter.get_window_stats(item, kind, key_id)
        return Rate(allowed, per_minute, max(0, remaining), max(1, math.ceil(reset_at - time.time())))
