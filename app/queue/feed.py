"""One listener's place in the events of one job: what was missed is read from the stream, the rest is heard."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

from redis.asyncio import Redis

from app.jobs import EventType, JobEvent
from app.queue.signal import Signal

__all__ = ["EVENT_ID", "Feed", "event_from_message"]

EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
HEARD_MOST = 64  # kept for a listener that is slow to take them; it reads what is beyond from the stream


class Feed:
    """Events in their order, each once. Filled by `Events`, emptied by its one listener."""

    def __init__(self, redis: Redis, stream: str, after: str | None) -> None:
        self._redis = redis
        self._stream = stream
        self._after = _position(after or "0-0")
        self._heard: deque[JobEvent] = deque()
        self._missed = True
        self._signal = Signal()

    def hear(self, event: JobEvent) -> None:
        if len(self._heard) == HEARD_MOST:
            self._heard.clear()
            self.miss()
        self._heard.append(event)
        self._signal.set()

    def miss(self) -> None:
        """Some may not have been heard."""
        self._missed = True
        self._signal.set()

    async def next(self, timeout_s: float) -> list[JobEvent]:
        """What has become of the job since the last call; [] where nothing was heard within this time.

        Raises redis.exceptions.RedisError.
        """
        if not self._missed and not self._heard:
            await self._signal.within(timeout_s)
        self._signal.clear()
        found: list[JobEvent] = []
        if self._missed:
            found = await self._read()
        found += self._heard
        self._heard.clear()
        return [event for event in found if self._is_new(event)]

    async def _read(self) -> list[JobEvent]:
        self._missed = False  # first: what is heard while this reads is kept
        after = f"({self._after[0]}-{self._after[1]}"
        try:
            entries: Any = await self._redis.xrange(self._stream, min=after)
        except BaseException:
            self._missed = True
            raise
        return [_event(entry_id, fields["type"], fields["data"]) for entry_id, fields in entries]

    def _is_new(self, event: JobEvent) -> bool:
        position = _position(event.id)
        if position <= self._after:
            return False
        self._after = position
        return True


def event_from_message(message: str) -> JobEvent:
    """As the scripts publish it."""
    return _event(*message.split(" ", 2))


def _event(entry_id: str, kind: str, data: str) -> JobEvent:
    return JobEvent(entry_id, EventType(kind), json.loads(data))


def _position(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
