"""What holds for every request: an id, a bounded body, and an answer even when the code fails."""

from __future__ import annotations

import asyncio
import re
import traceback
from contextlib import suppress
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.errors import BodyTooLarge, ServiceError, UnsupportedMediaType
from app.logs import Log

__all__ = ["BoundedBody", "RequestId"]

_log = Log("api")

#: An id of the caller's own is kept when it is safe to write into a header and a log line.
USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Puts `x-request-id` on every answer and turns an unexpected exception into a 500 that bears it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if USABLE_ID.fullmatch(asked) else f"req_{uuid4().hex}"
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            _log.error("unexpected_error", request=request_id, path=scope["path"], exception=traceback.format_exc())
            if started:
                raise  # the status is out; breaking the connection is the only sign left
            await error_response(ServiceError("an unexpected error; the server's log has it under this request's id"))(
                scope, receive, send_with_id
            )
        return None


class BoundedBody:
    """Reads the body before the app does, so that no route ever holds more than `limit_bytes` of one."""

    #: A client reads its answer only when it has sent all; what comes within this time is discarded, not kept.
    LINGER_S = 10.0

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self.app = app
        self.limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self.limit_bytes:
            return await self._refuse(scope, receive, send)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None  # the client left while sending
            body += message.get("body", b"")
            if len(body) > self.limit_bytes:
                return await self._refuse(scope, receive, send)
            if not message.get("more_body", False):
                break
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            error = UnsupportedMediaType(f"send JSON as content-type application/json, not {kind or 'none'}")
            return await error_response(error)(scope, receive, send)

        whole: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            message, whole = whole, None
            return message or await receive()

        return await self.app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers at once, then closes; in between lets the client finish, or a reset would cost it the answer."""
        response = error_response(BodyTooLarge(f"a request body holds at most {self.limit_bytes} bytes"))
        response.headers["connection"] = "close"

        async def hold_open(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await response(scope, receive, hold_open)
        if "expect" not in Headers(scope=scope):  # such a client waits for the answer before it sends
            with suppress(TimeoutError):
                async with asyncio.timeout(self.LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
        await send({"type": "http.response.body"})
