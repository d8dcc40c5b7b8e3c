"""Gives every request an id, and answers 500 if the code fails."""

from __future__ import annotations

import re
import traceback
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.responses.errors import error_response
from app.errors import ServiceError
from app.logs import Log

__all__ = ["RequestIdMiddleware"]

_log = Log("api")

#: An id of the caller's own is kept when it is safe to write into a header and a log line.
USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIdMiddleware:
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
            error = ServiceError("an unexpected error; the server's log has it under this request's id")
            await error_response(error, scope["path"])(scope, receive, send_with_id)
        return None
