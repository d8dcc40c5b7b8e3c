"""Where requests end: every split of their bytes into packets, every coding, and known kinds of request smuggling.

An application that echoes its request stands in for the API, behind the API's own protocol on a real socket.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.api.server import uvicorn_config
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import serving

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
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


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = (await request.body()).decode()
    said = {"method": scope["method"], "path": scope["path"], "body": body, "late": "x-late" in request.headers}
    await JSONResponse(said)(scope, receive, send)


@pytest.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    async with listening(settings) as port:
        yield port


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[int]:
    settings = settings.model_copy(update={"head_max_bytes": 4096, "read_timeout_s": 5.0})
    config = uvicorn_config(echo, settings, shutdown_s=1)  # type: ignore[arg-type]
    config.lifespan = "off"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


async def exchange(port: int, *packets: bytes) -> bytes:
    """All that is answered until the server closes. The server reads each packet by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for packet in packets:
        writer.write(packet)
        for _ in range(3):
            await asyncio.sleep(0)  # a turn of the loop, in which the server reads
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


def bodies(answer: bytes) -> list[dict[str, Any]]:
    """The bodies of all answers; an answer to HEAD has none."""
    found, rest = [], answer
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        if rest.startswith(b"{"):
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            found.append(json.loads(rest[:size]))
            rest = rest[size:]
    return found


def request(method: str, offer: str, body: str) -> bytes:
    fields, sent = BODIES[body]
    return "\r\n".join([f"{method} /outer HTTP/1.1", "Host: x", *OFFERS[offer], *fields, "", ""]).encode() + sent


EXPECTED = [
    {"method": "POST", "path": "/outer", "body": INNER.decode(), "late": False},
    {"method": "GET", "path": "/last", "body": "", "late": False},
]


async def test_a_request_is_read_alike_however_its_bytes_arrive(port: int) -> None:
    for offer, body in product(OFFERS, BODIES):
        sent = request("POST", offer, body) + LAST
        for split in range(len(sent)):
            assert bodies(await exchange(port, sent[:split], sent[split:])) == EXPECTED, (offer, body, split)
        assert bodies(await exchange(port, *(sent[at : at + 1] for at in range(len(sent))))) == EXPECTED, (offer, body)


async def test_no_method_s_body_is_read_as_a_request(port: int) -> None:
    for method, offer, body in product(METHODS, OFFERS, BODIES):
        sent = request(method, offer, body)
        head_bytes = len(sent) - len(BODIES[body][1])
        expected = [{**EXPECTED[0], "method": method}, EXPECTED[1]]
        for packets in ([sent + LAST], [sent[:head_bytes], sent[head_bytes:], LAST]):
            answer = await exchange(port, *packets)
            assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2, (method, offer, body, len(packets))
            assert bodies(answer) == (expected[1:] if method == "HEAD" else expected), (method, offer, body)


async def test_offers_in_a_row_are_answered_in_a_row(port: int) -> None:
    offer = request("POST", "h2c", "content-length")
    assert bodies(await exchange(port, offer * 50 + LAST)) == [EXPECTED[0]] * 50 + [EXPECTED[1]]


async def test_an_offer_without_a_body_is_answered_and_so_is_what_follows(port: int) -> None:
    sent = INNER.replace(b"\r\n\r\n", b"\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n") + LAST
    for split in range(len(sent)):
        paths = [said["path"] for said in bodies(await exchange(port, sent[:split], sent[split:]))]
        assert paths == ["/inner", "/last"], split


async def test_a_client_that_waits_for_100_continue_is_told_to_send(port: int) -> None:
    for offer in OFFERS:
        sent = request("POST", offer, "content-length").replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent[: -len(INNER)])
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(INNER + LAST)
        assert bodies(await asyncio.wait_for(reader.read(), 20)) == EXPECTED
        writer.close()


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


async def test_an_ambiguous_head_is_refused_and_the_connection_closed(port: int) -> None:
    answers = {}
    for kind, head in AMBIGUOUS.items():
        for offer in (b"", b"connection: upgrade\r\nupgrade: h2c\r\n"):
            sent = head.replace(b"host: x\r\n", b"host: x\r\n" + offer, 1)
            for split in (len(sent), sent.find(b"\r\n\r\n") + 4):
                answers[kind, offer, split] = statuses(await exchange(port, sent[:split], sent[split:] + LAST))
    assert answers == {key: [400] for key in answers}


async def test_a_broken_body_is_refused_and_the_connection_closed(port: int) -> None:
    answers = {}
    for kind, body in BROKEN_BODIES.items():
        for offer in (b"", b"connection: upgrade\r\nupgrade: h2c\r\n"):
            head = HEAD + offer + b"transfer-encoding: chunked\r\n\r\n"
            answers[kind, offer] = statuses(await exchange(port, head, body + LAST))
    assert answers == {key: [400] for key in answers}


def statuses(answer: bytes) -> list[int]:
    return [int(line[9:12]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@pytest.mark.parametrize("flood", [b"x-late: 1\r\n", b"x" * 100])
async def test_trailers_are_bounded(port: int, flood: bytes) -> None:
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    answer = await exchange(port, head, flood * 500)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_chunk_s_extension_is_bounded(port: int) -> None:
    answer = await exchange(port, HEAD + b"transfer-encoding: chunked\r\n\r\n5;a=", b"b" * 5000)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_no_body_passes_a_rule_of_nginx(settings: Settings, queue: Queue, tmp_path: Path) -> None:
    """nginx refuses the job's route and forwards offers, as a configuration for WebSockets does."""
    async with serving(settings) as api:
        job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()["id"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with nginx(tmp_path, port, api.base_url.port):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                assert (await client.post("/v1/jobs", json={"prompt": "refused"})).status_code == 403
            body = b'{"prompt": "smuggled"}'
            fields = b"host: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            inner = b"POST /v1/jobs HTTP/1.1\r\n" + fields % len(body) + b"\r\n" + body
            head = b"GET /v1/jobs/%b/events HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n" % job.encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + fields % len(inner) + b"\r\n")
            await asyncio.sleep(0.3)  # nginx forwards the head by itself
            writer.write(inner)
            await asyncio.sleep(0.3)
            await queue.cancel(job)  # ends the first answer, and what waits behind it would begin
            await asyncio.wait_for(reader.readuntil(b"event: cancelled"), 20)
            await asyncio.sleep(0.3)
            writer.close()
            assert await queue.depth("shapes-flux") == 0


@asynccontextmanager
async def nginx(folder: Path, port: int, api_port: int | None) -> AsyncIterator[None]:
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
          access_log off; {paths}
          server {{
            listen 127.0.0.1:{port};
            location = /v1/jobs {{ return 403; }}
            location / {{
              proxy_pass http://127.0.0.1:{api_port};
              proxy_http_version 1.1; proxy_request_buffering off;
              proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
            }}
          }}
        }}""")
    assert NGINX is not None
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", folder, "-c", folder / "nginx.conf", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()
