"""Pictures as server-sent events, in OpenAI's words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from redis.exceptions import RedisError

from app.api.errors import queue_unreachable
from app.api.openai.images import completed_events
from app.api.service import Service
from app.errors import ServiceError, Unavailable
from app.jobs import Job

__all__ = ["pictures_as_events", "timed_out"]

#: Proxies close what is silent for longer; 30 s is usual.
PING_S = 10.0
PING = ": \n\n"


def pictures_as_events(job: Job, service: Service, *, cancel_without_client: bool) -> StreamingResponse:
    """The stream of a job that was accepted. Its failure is an event `error` with the one error body."""
    events = _while_watched(job, service) if cancel_without_client else _events(job, service)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def timed_out(job: Job) -> Unavailable:
    """Of a request that was held as long as one may be."""
    message = f"not done within the time a request is held; the job goes on as /v1/jobs/{job.id}"
    return Unavailable(message, code="timeout")


async def _while_watched(job: Job, service: Service) -> AsyncIterator[str]:
    """The events; a client that leaves before their end leaves no work behind."""
    told = False
    try:
        async for event in _events(job, service):
            yield event
        told = True
    finally:
        if not told:
            with CancelScope(shield=True):
                await service.cancel(job.id)


async def _events(job: Job, service: Service) -> AsyncIterator[str]:
    yield PING  # the answer begins now, not with the first picture
    try:
        deadline = monotonic() + service.settings.wait_max_s
        while not job.status.terminal and not service.stopping() and (left_s := deadline - monotonic()) > 0:
            job = await service.wait(job, min(left_s, PING_S))
            yield PING
        if not job.status.terminal:
            raise timed_out(job)
        for each in await completed_events(job, service):
            yield _event(each.type, each.model_dump(mode="json"))
    except ServiceError as error:
        yield _event("error", error.body())
    except RedisError as error:
        yield _event("error", queue_unreachable(error).body())


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
