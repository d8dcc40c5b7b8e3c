"""What holds before there is a request: a head that is whole, small and in time, or the connection is closed."""

from __future__ import annotations

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.browser import HEADERS
from app.errors import HeadTooLarge, MalformedRequest, RequestTimeout, ServiceError

__all__ = ["BoundedHead"]

#: What comes after a refusal is discarded for so long: a reset would cost the client the answer. Not for as long as
#: behind a refused body, of which far more may be on its way.
LINGER_S = 1.0
#: A browser sends about twenty.
HEADERS_MAX = 100
HOST = re.compile(rb"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class BoundedHead(HttpToolsProtocol):
    """uvicorn's own protocol takes a head of any size, and waits for it for ever."""

    def __init__(self, head_max_bytes: int, timeout_s: float, config: Config, **state: Any) -> None:
        super().__init__(config, **state)
        self._head_max_bytes = head_max_bytes
        self._timeout_s = timeout_s
        self._head_bytes = 0  # of a head that is still to be completed
        self._in_head = True
        self._refused = False
        self._raised: ServiceError | None = None  # within the parser, which tells only that something was
        self._too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._too_slow is None:  # uvicorn's own limit, between two requests, has ended with the first byte
                self._await_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > self._head_max_bytes:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._in_head = False
        self._check_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Called when the bytes are no HTTP; by then the parser has lost its place."""
        self._refuse(self._raised or MalformedRequest(msg))

    def _check_head(self) -> None:
        """Raises into the parser, which ends in `send_400_response`."""
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > HEADERS_MAX or size_bytes > self._head_max_bytes:
            self._raised = self._too_large()
        hosts = [value for name, value in self.headers if name == b"host"]
        one_at_most = len(hosts) == 1 or (not hosts and self.parser.get_http_version() == "1.0")
        if self._raised is None and not (one_at_most and all(map(HOST.fullmatch, hosts))):
            self._raised = MalformedRequest("Host: must be sent once, and be a name or an address")
        if self._raised is not None:
            raise self._raised

    def _too_large(self) -> HeadTooLarge:
        most = f"at most {self._head_max_bytes} bytes and {HEADERS_MAX} headers"
        return HeadTooLarge(f"the head of a request holds {most}")

    def _await_head(self) -> None:
        self._stop_waiting()
        self._too_slow = self.loop.call_later(self._timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(RequestTimeout(f"the head did not arrive within {self._timeout_s:g} s"))
        else:
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _refuse(self, error: ServiceError) -> None:
        """Answers and closes. An answer that is still owed for an earlier request of this connection is the last."""
        self._stop_waiting()
        if self._refused:
            return
        if self.pipeline:
            self.transport.abort()
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            cycle.disconnected = True  # its body was broken off
            cycle.message_event.set()
        body = json.dumps(error.body()).encode()
        head = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: req_{uuid4().hex}",
            *(f"{name}: {value}" for name, value in HEADERS.items()),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.write_eof()
        self._refused = True
        self.loop.call_later(LINGER_S, self.transport.close)
