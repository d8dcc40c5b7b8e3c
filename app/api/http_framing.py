"""Request framing: where a request ends, and limits on the size and time of its head.

A subclass of uvicorn's httptools protocol. Its parser, llhttp, ends a request at its head if the head offers an
`Upgrade`; such a head is parsed again without the offer.

Alternatives, tried against tests/api/test_framing.py: h11 ignores the offer by itself, but accepts a third of the
malformed requests there (bare line feeds, folded lines, two framings at once) and takes 58 us per request instead of
3 us. zttp 0.0.35 is as strict and as fast as llhttp, but new: a reason to look again later. Both would need the same
limits in a subclass of the same size. granian 2.8 accepts two framings and bare line feeds too, and its refusals have
no body, while every error of this API has one.
"""

from __future__ import annotations

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.middleware.browser_security import HEADERS
from app.errors import HeadTooLarge, MalformedRequest, RequestTimeout, ServiceError

__all__ = ["BoundedHead"]

#: What comes after a refusal is discarded for so long: a reset would cost the client the answer. Not for as long as
#: behind a refused body, of which far more may be on its way.
LINGER_S = 1.0
#: A browser sends about twenty.
HEADERS_MAX = 100
HOST = re.compile(rb"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class BoundedHead(HttpToolsProtocol):
    """Bounds the head, its time and the trailers, none of which uvicorn's own protocol does, and ignores `Upgrade`."""

    def __init__(self, head_max_bytes: int, timeout_s: float, config: Config, **state: Any) -> None:
        super().__init__(config, **state)
        self._head_max_bytes = head_max_bytes
        self._timeout_s = timeout_s
        self._pending_bytes = 0  # received since the parser last completed a head, a piece of a body or a request
        self._in_head = True
        self._refused = False
        self._raised: ServiceError | None = None  # within the parser, which reports only that something was
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
        self._unset_keepalive_if_required()
        self._pending_bytes += len(data)
        if self._in_head and self._too_slow is None:  # uvicorn's own limit, between two requests, has just ended
            self._await_head()
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError:
            self._refuse(self._raised or MalformedRequest("the bytes received are no valid HTTP request"))
        else:
            if self._pending_bytes > self._head_max_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer must not pass for a header (RFC 9110, section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_offer():
            return
        self._stop_waiting()
        self._in_head = False
        self._pending_bytes = 0
        self._check_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_offer():
            return
        super().on_message_complete()
        self._in_head = True
        self._pending_bytes = 0

    def _parse(self, data: memoryview) -> None:
        while True:
            try:
                return self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(head)

    def _is_offer(self) -> bool:
        """Whether the parsed head offers an upgrade. The offer is ignored (RFC 9110, section 7.8)."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_offer(self) -> bytes:
        """Returns the head just parsed, as bytes; parsed names and values hold no line end."""
        request_line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([request_line, *fields, b"", b""])

    def _check_head(self) -> None:
        """Raises into the parser, which raises an error of its own: `data_received` refuses with the one kept here."""
        self._raised = self._fault()
        if self._raised is not None:
            raise self._raised

    def _fault(self) -> ServiceError | None:
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > HEADERS_MAX or size_bytes > self._head_max_bytes:
            return self._too_large()
        version = self.parser.get_http_version()
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or version != "1.1"):
            return MalformedRequest("Transfer-Encoding: must be chunked, and the request HTTP/1.1")
        hosts = [value for name, value in self.headers if name == b"host"]
        one_at_most = len(hosts) == 1 or (not hosts and version == "1.0")
        if not (one_at_most and all(map(HOST.fullmatch, hosts))):
            return MalformedRequest("Host: must be sent once, and be a name or an address")
        if self.parser.get_method() == b"CONNECT":
            return MalformedRequest("CONNECT: this server is no proxy")
        return None

    def _too_large(self) -> HeadTooLarge:
        most = f"at most {self._head_max_bytes} bytes and {HEADERS_MAX} headers"
        return HeadTooLarge(f"the head of a request holds {most}")

    def _await_head(self) -> None:
        self._stop_waiting()
        self._too_slow = self.loop.call_later(self._timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._pending_bytes:
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
