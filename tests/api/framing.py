"""Requests at the limits of HTTP/1.1's framing, and an application that echoes what it is given of them.

The application stands in for the API, behind the API's own protocol on a real socket.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.api.server import uvicorn_config
from app.settings import Settings

OFFERS = {
    "none": [],
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    "websocket": ["connection: keep-alive, Upgrade", "upgrade: websocket", "sec-websocket-version: 13"],
    "TLS": ["Connection: Upgrade", "Upgrade: TLS/1.2, HTTP/1.1"],
    "another protocol": ["Connection: close-not, upgrade", "Upgrade: other/7"],
    "without Upgrade": ["connection: upgrade"],
    "without Connection": ["upgrade: h2c"],
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]
INNER = b"POST /inner HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
BODIES = {
    "content-length": ([f"content-length: {len(INNER)}"], INNER),
    "chunked": (
        ["Transfer-Encoding: chunked"],
        b"5;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nx-late: 1\r\n\r\n" % (INNER[:5], len(INNER) - 5, INNER[5:]),
    ),
}


HEAD = b"POST /outer HTTP/1.1\r\nhost: x\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
AMBIGUOUS = {
    "two framings": HEAD + b"content-length: 15\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "two framings, reversed": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 15\r\n\r\n" + CHUNKS,
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "one length twice": HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": HEAD + b"content-length: 5, 5\r\n\r\nhello",
    "a signed length": HEAD + b"content-length: +5\r\n\r\nhello",
    "a length in hex": HEAD + b"content-length: 0x5\r\n\r\nhello",
    "a length beyond all": HEAD + b"content-length: 18446744073709551621\r\n\r\nhello",
    "an empty length": HEAD + b"content-length:\r\n\r\nhello",
    "two codings": HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "an unknown coding": HEAD + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "gzip": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "an empty coding": HEAD + b"transfer-encoding: , chunked\r\n\r\n" + CHUNKS,
    "identity": HEAD + b"transfer-encoding: identity\r\ncontent-length: 5\r\n\r\nhello",
    "a coding behind a tab of the wrong kind": HEAD + b"transfer-encoding:\x0bchunked\r\n\r\n" + CHUNKS,
    "a space before the colon": HEAD + b"content-length : 5\r\n\r\nhello",
    "a folded line": HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a folded length": HEAD + b"content-length: 1\r\n 5\r\n\r\nhello",
    "a header folded by a tab": HEAD + b"x: y\r\n\tz\r\ncontent-length: 5\r\n\r\nhello",
    "a folded first line": b"POST /outer HTTP/1.1\r\n host: x\r\nhost: x\r\n\r\n",
    "line feeds": b"POST /outer HTTP/1.1\nhost: x\ncontent-length: 5\n\nhello",
    "one line feed": b"POST /outer HTTP/1.1\r\nhost: x\r\nx: y\ncontent-length: 5\r\n\r\nhello",
    "a bare carriage return": HEAD + b"x: y\rcontent-length: 5\r\n\r\nhello",
    "a zero": HEAD + b"x: \0\r\ncontent-length: 5\r\n\r\nhello",
    "chunked before HTTP/1.1": HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT to a path": b"CONNECT /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    "CONNECT and an offer": b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "HTTP/2 without an offer": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /outer\r\n",
}
BROKEN_BODIES = {
    "a size with a sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with a space": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size beyond all": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size that is too small": b"4\r\nhello\r\n0\r\n\r\n",
    "a size that is too large": b"6\r\nhello\r\n0\r\n\r\n",
    "line feeds": b"5\nhello\n0\n\n",
    "a line feed behind an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "a length among the trailers": b"5\r\nhello\r\n0\r\ncontent-length: 60\r\n\r\n",
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = (await request.body()).decode()
    said = {"method": scope["method"], "path": scope["path"], "body": body, "late": "x-late" in request.headers}
    await JSONResponse(said)(scope, receive, send)


@asynccontextmanager
async def listening(
    settings: Settings, app: Callable[[Scope, Receive, Send], Awaitable[None]] = echo
) -> AsyncIterator[int]:
    """The port of a server with small limits."""
    settings = settings.model_copy(update={"head_max_bytes": 4096, "read_timeout_s": 5.0})
    config = uvicorn_config(app, settings, shutdown_s=1)  # type: ignore[arg-type]
    config.lifespan = "off"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


def request(method: str, offer: str, body: str, path: str = "/outer") -> bytes:
    """One request, its head and its body."""
    fields, sent = BODIES[body]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *OFFERS[offer], *fields, "", ""]).encode() + sent


def statuses(answer: bytes) -> list[int]:
    """Of all answers of a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
