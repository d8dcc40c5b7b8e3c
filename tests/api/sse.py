"""Server-sent events as a client reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class SseMessage:
    """One event; a comment alone has the type `comment`."""

    type: str
    id: str | None = None
    data: Any = None


@asynccontextmanager
async def listening(
    api: httpx.AsyncClient, job_id: str, after: str | None = None
) -> AsyncIterator[AsyncIterator[SseMessage]]:
    """The job's events as they come; left, the connection is dropped."""
    headers = {} if after is None else {"last-event-id": after}
    async with api.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield _events(answer)


async def events(api: httpx.AsyncClient, job_id: str, after: str | None = None) -> list[SseMessage]:
    """All of them, until the server ends the stream."""
    async with listening(api, job_id, after) as coming:
        return [event async for event in coming]


async def _events(answer: httpx.Response) -> AsyncIterator[SseMessage]:
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line:
            data = json.loads(fields["data"]) if "data" in fields else None
            yield SseMessage(fields.get("event", "comment"), fields.get("id"), data)
            fields = {}
            continue
        name, _, value = line.partition(": ")
        fields[name] = value
