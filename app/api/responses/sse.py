"""Server-sent events: what becomes of a job, as it happens."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import monotonic

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from redis.exceptions import RedisError
from starlette.types import Send

from app.api.responses.event import event_view
from app.api.service import LOOK_S, Service
from app.errors import InvalidParameter
from app.jobs import Job, JobEvent
from app.logs import Log
from app.queue.events import EVENT_ID

__all__ = ["EventStream", "event_id", "events_of", "told"]

#: Of silence, before a comment is sent; proxies close a connection that is silent for a minute.
KEEP_ALIVE_S = 15.0
_log = Log("api")


class EventStream(StreamingResponse):
    """`content` yields the stream's bytes, and is closed with the connection.

    Not FastAPI's EventSourceResponse: a route of that kind must itself be a generator, and cannot answer 404 or 204.
    """

    media_type = "text/event-stream"

    def __init__(
        self, content: AsyncGenerator[bytes], status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        # FastAPI reads the default for its schema. A proxy that gathers what comes would make the stream pointless.
        own = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(content, status_code, headers=own | dict(headers or {}))
        self._content = content

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._content):
            await super().stream_response(send)


def event_id(header: str | None) -> str | None:
    """Returns the `Last-Event-ID` that a client sent. Raises InvalidParameter."""
    if header is not None and EVENT_ID.fullmatch(header) is None:
        raise InvalidParameter("Last-Event-ID: not the id of an event", param="Last-Event-ID")
    return header


async def told(service: Service, job: Job, after: str | None) -> AsyncGenerator[bytes]:
    """`events_of` on the wire. Cut short, by the server's end or with the queue away, it is taken up by the last id."""
    try:
        async with aclosing(events_of(service, job, after)) as events:
            async for event in events:
                yield KEEPALIVE_COMMENT if event is None else await _written(service, job, event)
    except RedisError as error:
        _log.warning("events_cut", job=job.id, error=type(error).__name__)


async def events_of(service: Service, job: Job, after: str | None) -> AsyncGenerator[JobEvent | None]:
    """Yields the events of the job behind the one with id `after`, up to the one that ends it; None after each
    KEEP_ALIVE_S of silence.

    It ends early when the server is told to end. Raises redis.exceptions.RedisError.
    """
    async with service.queue.follow(job.id, after) as feed:
        silent_since_s = monotonic()
        while not service.stopping():
            events = await feed.next(LOOK_S)
            silent = not events and monotonic() - silent_since_s > KEEP_ALIVE_S
            if silent and ((now := await service.queue.get(job.id)) is None or now.status.is_terminal):
                return  # deleted while nobody listened
            if events or silent:
                silent_since_s = monotonic()
            if silent:
                yield None
            for event in events:
                yield event
            if events and events[-1].type.is_terminal:  # one that was followed by others was undone by an operator
                return


async def _written(service: Service, job: Job, event: JobEvent) -> bytes:
    ended = await service.queue.get(job.id) if event.type.is_terminal else None
    ended = None if ended is not None and ended.is_deleted else ended
    view = event_view(event, job, ended, service.links).model_dump(mode="json")
    said = {name: value for name, value in view.items() if value is not None}
    return format_sse_event(data_str=json.dumps(said), event=event.type, id=event.id)
