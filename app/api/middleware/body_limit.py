"""Bounds the size and the time of a request body, and checks its kind and its JSON, before any route reads it.

An upload is bounded while its route reads it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from time import monotonic

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.early_response import discard_rest, refuse
from app.api.responses.errors import error_response
from app.errors import BodyTooLarge, MalformedBody, RequestTimeout, ServiceError, UnsupportedMediaType

__all__ = ["JSON", "BodyLimitMiddleware"]

JSON = "application/json"
NONE_LARGER: Mapping[str, int] = {}
#: Slower than this, an upload is given up.
UPLOAD_BYTES_PER_S = 100_000
#: A long data URL as a value of valid JSON; parsing it would take several times its memory.
DATA_URL_VALUE = re.compile(rb'(?<!\\)"data:[^"\\]{256,}"(?=\s*[,\]}])', re.IGNORECASE)
NO_OTHER_KINDS: Mapping[str, tuple[str, ...]] = {}


class BodyLimitMiddleware:
    """Reads the body before the app does, so that no route ever holds more than `limit_bytes` of one; but for uploads,
    which their route reads piece by piece.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_bytes: int,
        timeout_s: float,
        kinds: Mapping[str, tuple[str, ...]] = NO_OTHER_KINDS,
        larger: Mapping[str, int] = NONE_LARGER,
        uploads: Collection[str] = (),
    ) -> None:
        """`kinds` has the media types of paths that take others than JSON alone, `larger` the limits of paths with one
        of their own; `uploads` are the paths of uploads.
        """
        self.app = app
        self.limit_bytes = limit_bytes
        self.timeout_s = timeout_s
        self.kinds = kinds
        self.larger = larger
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        limit_bytes = self.larger.get(scope["path"], self.limit_bytes)
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit_bytes:
            return await refuse(_too_large(limit_bytes), scope, receive, send)
        if scope["path"] in self.uploads and scope["method"] == "POST":
            return await self._pass_on(headers, limit_bytes, scope, receive, send)
        try:
            async with asyncio.timeout(self.timeout_s):
                body = await _read(receive, limit_bytes)
        except TimeoutError:
            late = RequestTimeout(f"the body did not arrive within {self.timeout_s:g} s")
            return await refuse(late, scope, receive, send)
        except BodyTooLarge as large:
            return await refuse(large, scope, receive, send)
        if body is None:
            return None
        fault = self._fault(scope, _kind(headers), body) if body else None
        if fault is not None and is_routed(scope):  # else the router says that there is no such route or method
            return await error_response(fault, scope["path"])(scope, receive, send)

        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}
        del body  # the app may hold a request for minutes; its body is not needed that long

        async def replay() -> Message:
            nonlocal whole
            message, whole = whole, None
            return message or await receive()

        return await self.app(scope, replay, send)

    def _fault(self, scope: Scope, kind: str, body: bytes) -> ServiceError | None:
        if (wrong := self._wrong_kind(scope, kind)) is not None:
            return wrong
        if kind == JSON and not _is_utf8(body):
            return MalformedBody("the body is not UTF-8")
        if kind == JSON and (name := _said_twice(body)) is not None:
            return MalformedBody(f"the body says {json.dumps(name)} twice")
        return None

    def _wrong_kind(self, scope: Scope, kind: str) -> UnsupportedMediaType | None:
        kinds = self.kinds.get(scope["path"], (JSON,))
        if kind in kinds:
            return None
        return UnsupportedMediaType(f"content-type: must be {' or '.join(kinds)}, got {kind or 'none'}")

    async def _pass_on(self, headers: Headers, limit_bytes: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the app read the body as it arrives. Beyond a limit, reading raises BodyTooLarge or RequestTimeout."""
        if (wrong := self._wrong_kind(scope, _kind(headers))) is not None:
            return await refuse(wrong, scope, receive, send)
        begun_at, received, is_whole = monotonic(), 0, False

        async def receive_part() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(begun_at + self.timeout_s + received / UPLOAD_BYTES_PER_S - monotonic()):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout(f"the body stopped arriving after {received} bytes") from None
            received += len(message.get("body", b""))
            if received > limit_bytes:
                raise _too_large(limit_bytes)
            is_whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_whole:
                MutableHeaders(scope=message)["connection"] = "close"
            elif not message.get("more_body", False) and not is_whole:
                await send({**message, "more_body": True})
                await discard_rest(headers, receive)
                message = {"type": "http.response.body"}
            await send(message)

        return await self.app(scope, receive_part, send_and_close)


def is_routed(scope: Scope) -> bool:
    """Whether the app has a route for the path and the method of a request."""
    asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
    return any(route.matches(asked)[0] is Match.FULL for route in scope["app"].routes)


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(receive: Receive, limit_bytes: int) -> bytes | None:
    """Returns the whole body; None if the client left while it sent. Raises BodyTooLarge."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"a request body holds at most {limit_bytes} bytes")


def _is_utf8(body: bytes) -> bool:
    """Python would guess another encoding from the zeros in it; JSON is in this one, and holds no zero."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return False
    return b"\0" not in body


def _said_twice(body: bytes) -> str | None:
    """Returns a name that stands twice in one object of this JSON: readers differ on which of the values holds.

    None as well for what is no JSON, which is told elsewhere.
    """
    twice: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        names = Counter(name for name, _ in pairs)
        twice.extend(name for name, count in names.items() if count > 1)

    with suppress(ValueError, RecursionError):
        json.loads(DATA_URL_VALUE.sub(b'""', body), object_pairs_hook=note)
    return twice[0] if twice else None
