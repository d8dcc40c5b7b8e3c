"""Images as server-sent events in OpenAI's form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from anyio import CancelScope
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from redis.exceptions import RedisError

from app.api.openai.images import completed_events, partial_event
from app.api.responses.sse import events_of
from app.api.service import Service
from app.errors import ServiceError, Unavailable
from app.jobs import EventType, Job
from app.queue.connection import translate_redis_error

__all__ = ["image_sse_events", "timed_out", "without_client_cancelled"]

#: The same request takes the job over and is held again.
RETRY_S = 1


def timed_out(job: Job) -> Unavailable:
    """Returns the error of a request that is held no longer."""
    message = f"not done within the time a request is held; the job goes on as /v1/jobs/{job.id}, or send this again"
    return Unavailable(message, code="timeout", retry_after_s=RETRY_S)


async def without_client_cancelled(job: Job, service: Service) -> AsyncGenerator[bytes]:
    """`image_sse_events`; a client that leaves before the end leaves no work behind, unless it soon asks again."""
    whole = False
    try:
        async with aclosing(image_sse_events(job, service)) as told:
            async for each in told:
                yield each
        whole = True
    finally:
        if not whole:
            with CancelScope(shield=True):
                await service.orphans.leave(job.id)


async def image_sse_events(job: Job, service: Service) -> AsyncGenerator[bytes]:
    """Yields the events of an accepted job; its failure is an event `error` with the one error body."""
    yield KEEPALIVE_COMMENT  # the answer begins now, not with the first image
    try:
        shown: Counter[int] = Counter()  # by image
        async with aclosing(events_of(service, job, None)) as events:
            async for event in events:
                if event is None:
                    yield KEEPALIVE_COMMENT
                elif event.type is EventType.STARTED:
                    shown.clear()  # once more from the first step, if it was handed back
                elif event.type is EventType.PREVIEW:
                    index = event.data["index"]
                    partial = partial_event(event, job.request, shown[index])
                    shown[index] += 1
                    yield _written(partial.type, partial)
        ended = await service.follow(job.id)
        if not ended.status.is_terminal:
            raise timed_out(job)
        for completed in await completed_events(ended, service):
            yield _written(completed.type, completed)
    except ServiceError as error:
        yield format_sse_event(event="error", data_str=json.dumps(error.body()))
    except RedisError as error:
        yield format_sse_event(event="error", data_str=json.dumps(translate_redis_error(error).body()))


def _written(name: str, event: BaseModel) -> bytes:
    return format_sse_event(event=name, data_str=event.model_dump_json())
