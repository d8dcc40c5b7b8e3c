"""What wakes the waiting: one subscription a process, fanned out to all who wait or listen in it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.logs import Log
from app.queue.cancel import end
from app.queue.feed import Feed, event_from_message
from app.queue.keys import Keys
from app.queue.signal import Signal

__all__ = ["Events"]

RECONNECT_S = 1.0  # between two tries to reach a server that is away
_log = Log("queue")


class Events:
    """Turns messages on the channels of `keys` into set signals and filled feeds. A subscription made anew wakes
    everyone, since messages may have been missed: the woken look at the state itself.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        #: Every process subscribes to these; of jobs' events, to those that somebody in it waits for.
        self._common = (keys.DONE, keys.QUEUED, keys.REVOKED, keys.NOTICED)
        self._waiting: dict[tuple[str, str], set[Signal]] = defaultdict(set)
        self._feeds: dict[str, set[Feed]] = {}  # by channel
        self._followed = asyncio.Event()  # other jobs than before
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    @asynccontextmanager
    async def watch(self, channel: str, payloads: Iterable[str], signal: Signal | None = None) -> AsyncIterator[Signal]:
        """A signal set by each message on `channel` that says one of `payloads`. Entered, nothing is missed."""
        self._start()
        names = [(channel, each) for each in payloads]
        signal = signal or Signal()
        for name in names:
            self._waiting[name].add(signal)
        try:
            with suppress(TimeoutError):  # a server that is away: the caller's own command will say so
                async with asyncio.timeout(RECONNECT_S):
                    await self._subscribed.wait()
            yield signal
        finally:
            for name in names:
                self._waiting[name].discard(signal)
                if not self._waiting[name]:
                    del self._waiting[name]

    @asynccontextmanager
    async def follow(self, job_id: str, after: str | None) -> AsyncIterator[Feed]:
        """The job's events behind the one with id `after`: those that were and those to come, none missed."""
        self._start()
        channel = self._keys.events(job_id)
        feed = Feed(self._redis, channel, after)
        self._feeds.setdefault(channel, set()).add(feed)
        self._followed.set()
        try:
            yield feed
        finally:
            self._feeds[channel].discard(feed)
            if not self._feeds[channel]:
                del self._feeds[channel]
                self._followed.set()

    async def close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="queue events")

    async def _listen(self) -> None:
        while True:
            subscribing: asyncio.Task[None] | None = None
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(*self._common)
                    subscribing = asyncio.create_task(self._subscribe(subscription), name="queue subscriptions")
                    async for message in subscription.listen():
                        self._take(message)
            except (RedisError, OSError) as error:
                _log.warning("events_lost", error=type(error).__name__)
            finally:
                self._subscribed.clear()
                if subscribing is not None:
                    await end(subscribing)
            await asyncio.sleep(RECONNECT_S)

    async def _subscribe(self, subscription: PubSub) -> None:
        """Keep the subscription to the jobs that are followed."""
        heard: set[str] = set()
        while True:
            self._followed.clear()
            wanted = set(self._feeds)
            try:
                if new := wanted - heard:
                    await subscription.subscribe(*new)
                if old := heard - wanted:
                    await subscription.unsubscribe(*old)
            # The other task finds a lost connection out as well, and may have mended it. While it closes the
            # connection, redis-py fails here with an AttributeError.
            except (RedisError, OSError, AttributeError):
                wanted = set()
                await asyncio.sleep(RECONNECT_S)
                self._followed.set()
            heard = wanted
            await self._followed.wait()

    def _take(self, message: dict[str, str]) -> None:
        kind, channel, data = message["type"], message["channel"], message["data"]
        feeds = self._feeds.get(channel, ())
        if kind == "subscribe":
            self._subscribed.set()
            for feed in feeds:
                feed.miss()
            woken = [each for (of, _), signals in self._waiting.items() if of == channel for each in signals]
        elif kind != "message":
            return
        elif feeds:
            event, woken = event_from_message(data), []
            for feed in feeds:
                feed.hear(event)
        else:
            woken = list(self._waiting.get((channel, data), ()))
        for each in woken:
            each.set()
