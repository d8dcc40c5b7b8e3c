"""What wakes the waiting: one subscription a process, fanned out to asyncio events."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.logs import Log
from app.queue import keys
from app.queue.cancel import end

__all__ = ["Events", "Signal"]

RECONNECT_S = 1.0  # between two tries to reach a server that is away
_log = Log("queue")


class Signal(asyncio.Event):
    """An event that can be waited for with a limit."""

    async def within(self, timeout_s: float) -> bool:
        """Whether it was set within this time; clears it."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self.wait()
        except TimeoutError:
            return False
        self.clear()
        return True


class Events:
    """Turns messages on the channels of `keys` into set events. A subscription made anew wakes everyone, since
    messages may have been missed: the woken look at the state itself.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[tuple[str, str], set[Signal]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    @asynccontextmanager
    async def watch(self, channel: str, payloads: Iterable[str]) -> AsyncIterator[Signal]:
        """A signal set by each message on `channel` that says one of `payloads`. Entered, nothing is missed."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="queue events")
        names = [(channel, each) for each in payloads]
        event = Signal()
        for name in names:
            self._waiting[name].add(event)
        try:
            with suppress(TimeoutError):  # a server that is away: the caller's own command will say so
                async with asyncio.timeout(RECONNECT_S):
                    await self._subscribed.wait()
            yield event
        finally:
            for name in names:
                self._waiting[name].discard(event)
                if not self._waiting[name]:
                    del self._waiting[name]

    async def close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(keys.DONE, keys.QUEUED, keys.REVOKED)
                    async for message in subscription.listen():
                        self._take(message)
            except (RedisError, OSError) as error:
                _log.warning("events_lost", error=type(error).__name__)
            finally:
                self._subscribed.clear()
            await asyncio.sleep(RECONNECT_S)

    def _take(self, message: dict[str, str]) -> None:
        if message["type"] == "subscribe":
            self._subscribed.set()
            woken = [each for events in self._waiting.values() for each in events]
        else:
            woken = list(self._waiting.get((message["channel"], message["data"]), ()))
        for event in woken:
            event.set()
