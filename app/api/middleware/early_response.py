"""Answers a request before its body was read to the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from app.api.responses.errors import error_response
from app.errors import ServiceError

__all__ = ["LINGER_S", "discard_rest", "refuse"]

#: A client reads its answer only when it has sent all; what comes within this time is discarded, not kept.
LINGER_S = 10.0


async def refuse(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the error at once. If a body is on its way, discards it and then closes the connection: a client that is
    still sending when the connection is reset loses the answer.
    """
    response = error_response(error, scope["path"])
    headers = Headers(scope=scope)
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return await response(scope, receive, send)
    response.headers["connection"] = "close"

    async def hold_open(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(scope, receive, hold_open)
    await discard_rest(headers, receive)
    return await send({"type": "http.response.body"})


async def discard_rest(headers: Headers, receive: Receive) -> None:
    """Reads the rest of a body and discards it, for at most LINGER_S."""
    if "expect" in headers:  # such a client waits for the answer before it sends
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
