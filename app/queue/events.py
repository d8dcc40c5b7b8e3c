"""Shares one Redis Pub/Sub subscription per process among all waiters and event streams."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.asyncio_utils import Signal, cancel_and_wait
from app.jobs import EventType, JobEvent
from app.logs import Log
from app.queue.keys import Keys

__all__ = ["EVENT_ID", "EventStream", "Events"]

EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
RECONNECT_S = 1.0  # between two tries to reach a server that is away
#: Events kept for a listener that is slow to take them; it reads more than these from the Redis stream.
BUFFERED_MOST = 64
_log = Log("queue")


class EventStream:
    """The events of one job for one listener, in their order, each once.

    Events that were published before it subscribed are read from the job's Redis stream. `Events` pushes the others.
    """

    def __init__(self, redis: Redis, stream: str, after: str | None) -> None:
        self._redis = redis
        self._stream = stream
        self._after = _position(after or "0-0")
        self._buffer: deque[JobEvent] = deque()
        self._has_gap = True
        self._signal = Signal()

    def push(self, event: JobEvent) -> None:
        """Adds a published event."""
        if len(self._buffer) == BUFFERED_MOST:
            self._buffer.clear()
            self.mark_gap()
        self._buffer.append(event)
        self._signal.set()

    def mark_gap(self) -> None:
        """Notes that events may be missing: the next call of `next` reads the Redis stream."""
        self._has_gap = True
        self._signal.set()

    async def next(self, timeout_s: float) -> list[JobEvent]:
        """Returns the events since the last call; an empty list if there is none within this time.

        Raises redis.exceptions.RedisError.
        """
        if not self._has_gap and not self._buffer:
            await self._signal.within(timeout_s)
        self._signal.clear()
        events: list[JobEvent] = []
        if self._has_gap:
            events = await self._read()
        events += self._buffer
        self._buffer.clear()
        return [event for event in events if self._is_new(event)]

    async def _read(self) -> list[JobEvent]:
        self._has_gap = False  # first: events that are pushed during the read are kept
        after = f"({self._after[0]}-{self._after[1]}"
        try:
            entries: Any = await self._redis.xrange(self._stream, min=after)
        except BaseException:
            self._has_gap = True
            raise
        return [_event(entry_id, fields["type"], fields["data"]) for entry_id, fields in entries]

    def _is_new(self, event: JobEvent) -> bool:
        position = _position(event.id)
        if position <= self._after:
            return False
        self._after = position
        return True


class Events:
    """Turns messages on the channels of `keys` into set signals and pushed events.

    A new subscription sets every signal, since messages may have been missed: the waiters then read the state itself.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        #: Every process subscribes to these, and to the events of the jobs that somebody in it follows.
        self._common = (keys.DONE, keys.QUEUED, keys.REVOKED, keys.NOTICED)
        self._signals: dict[tuple[str, str], set[Signal]] = defaultdict(set)  # by channel and payload
        self._streams: dict[str, set[EventStream]] = {}  # by channel
        self._streams_changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    @asynccontextmanager
    async def watch(self, channel: str, payloads: Iterable[str], signal: Signal | None = None) -> AsyncIterator[Signal]:
        """Sets a signal at each message on `channel` with one of `payloads`. Inside the block no message is missed."""
        self._start()
        names = [(channel, payload) for payload in payloads]
        signal = signal or Signal()
        for name in names:
            self._signals[name].add(signal)
        try:
            with suppress(TimeoutError):  # a server that is away: the caller's own command will say so
                async with asyncio.timeout(RECONNECT_S):
                    await self._subscribed.wait()
            yield signal
        finally:
            for name in names:
                self._signals[name].discard(signal)
                if not self._signals[name]:
                    del self._signals[name]

    @asynccontextmanager
    async def follow(self, job_id: str, after: str | None) -> AsyncIterator[EventStream]:
        """Streams the job's events behind the one with id `after`, past ones included; none is missed."""
        self._start()
        channel = self._keys.events(job_id)
        stream = EventStream(self._redis, channel, after)
        self._streams.setdefault(channel, set()).add(stream)
        self._streams_changed.set()
        try:
            yield stream
        finally:
            self._streams[channel].discard(stream)
            if not self._streams[channel]:
                del self._streams[channel]
                self._streams_changed.set()

    async def close(self) -> None:
        """Ends the subscription."""
        if self._task is not None:
            await cancel_and_wait(self._task)
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
                        self._dispatch(message)
            except (RedisError, OSError) as error:
                _log.warning("events_lost", error=type(error).__name__)
            finally:
                self._subscribed.clear()
                if subscribing is not None:
                    await cancel_and_wait(subscribing)
            await asyncio.sleep(RECONNECT_S)

    async def _subscribe(self, subscription: PubSub) -> None:
        """Keeps the subscription to the jobs that are followed."""
        subscribed: set[str] = set()
        while True:
            self._streams_changed.clear()
            wanted = set(self._streams)
            try:
                if new := wanted - subscribed:
                    await subscription.subscribe(*new)
                if old := subscribed - wanted:
                    await subscription.unsubscribe(*old)
            # The other task notices a lost connection as well, and may have replaced it. While it closes the
            # connection, redis-py fails here with an AttributeError.
            except (RedisError, OSError, AttributeError):
                wanted = set()
                await asyncio.sleep(RECONNECT_S)
                self._streams_changed.set()
            subscribed = wanted
            await self._streams_changed.wait()

    def _dispatch(self, message: dict[str, str]) -> None:
        kind, channel, data = message["type"], message["channel"], message["data"]
        streams = self._streams.get(channel, ())
        if kind == "subscribe":
            self._subscribed.set()
            for stream in streams:
                stream.mark_gap()
            for (watched, _), signals in self._signals.items():
                if watched == channel:
                    _set_all(signals)
        elif kind == "message" and streams:
            event = _event(*data.split(" ", 2))
            for stream in streams:
                stream.push(event)
        elif kind == "message":
            _set_all(self._signals.get((channel, data), ()))


def _set_all(signals: Iterable[Signal]) -> None:
    for signal in signals:
        signal.set()


def _event(entry_id: str, kind: str, data: str) -> JobEvent:
    return JobEvent(entry_id, EventType(kind), json.loads(data))


def _position(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
