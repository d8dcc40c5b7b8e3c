"""Bytes on a socket that are not yet a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from itertools import count, repeat

import httpx
import pytest

from app.settings import Settings
from tests.api.support import serving

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"head_max_bytes": 4096, "read_timeout_s": 0.5})) as client:
        yield client


async def said(api: httpx.AsyncClient, *sent: bytes) -> bytes:
    """All that is answered, until the server closes."""
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    for each in sent:
        writer.write(each)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


async def trickled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> bytes:
    """All that is answered, until the server closes, to pieces that go on coming."""

    async def trickle() -> None:
        for each in pieces:
            writer.write(each)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(trickle())
    answer = await asyncio.wait_for(reader.read(), 20)
    task.cancel()
    writer.close()
    return answer


def refused(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req_" in head
    return int(answer.split()[1]), json.loads(body)["error"]["code"]


async def test_a_connection_that_says_nothing_is_closed(api: httpx.AsyncClient) -> None:
    assert await said(api) == b""


async def test_a_head_that_does_not_end_is_refused(api: httpx.AsyncClient) -> None:
    assert refused(await said(api, b"GET /healthz HTTP/1.1\r\nhost: x\r\n")) == (408, "request_timeout")


async def test_a_head_that_trickles_is_refused(api: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
    fields = (f"x-{number}: 1\r\n".encode() for number in count())
    assert refused(await trickled(reader, writer, fields)) == (408, "request_timeout")


async def test_line_ends_for_ever_are_no_request(api: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(GET)
    await reader.readuntil(b"}")
    assert refused(await trickled(reader, writer, repeat(b"\r\n"))) == (408, "request_timeout")


async def test_a_body_that_trickles_is_refused(api: httpx.AsyncClient) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 20)
    writer.close()
    assert refused(answer) == (408, "request_timeout")


@pytest.mark.parametrize(
    "header", [b"a: " + b"x" * 5000, b"\r\n".join([b"a: b"] * 101), b"\r\n".join([b"aaaaaa: bb"] * 400)]
)
async def test_a_head_too_large(api: httpx.AsyncClient, header: bytes) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + header + b"\r\n\r\n"
    assert refused(await said(api, whole)) == (431, "head_too_large")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [(b"GET /" + b"x" * 50_000, 431, "head_too_large"), (b"\0" * 50_000, 400, "malformed_request")],
)
async def test_a_client_that_goes_on_sending_gets_its_answer(
    api: httpx.AsyncClient, sent: bytes, status: int, code: str
) -> None:
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 20)
    assert (refused(answer), answer.count(b"HTTP/1.1")) == ((status, code), 1)
    for _ in range(3):  # a reset would end this
        writer.write(sent)
        await asyncio.sleep(0.02)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "hosts", [b"", b"host: a\r\nhost: b\r\n", b"host: a b\r\n", b"host: a/b\r\n", b"host: a@b\r\n", b"host:\r\n"]
)
async def test_a_host_that_is_none(api: httpx.AsyncClient, hosts: bytes) -> None:
    assert refused(await said(api, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")) == (400, "malformed_request")


@pytest.mark.parametrize("host", [b"a", b"a.example:8000", b"127.0.0.1:1", b"[::1]", b"[::1]:80"])
async def test_a_host(api: httpx.AsyncClient, host: bytes) -> None:
    assert b" 200 OK" in await said(api, b"GET /healthz HTTP/1.1\r\nconnection: close\r\nhost: " + host + b"\r\n\r\n")


async def test_what_follows_a_request_does_not_cost_it_its_answer(api: httpx.AsyncClient) -> None:
    """Nor is it answered before: whoever shares the connection would take that for its own."""
    answer = await said(api, GET + b"garbage\x00\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1


async def test_requests_in_a_row_are_answered_in_a_row(api: httpx.AsyncClient) -> None:
    last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert (await said(api, GET + GET + last)).count(b"HTTP/1.1 200 OK") == 3


async def test_a_body_that_is_broken_off_is_refused_once(api: httpx.AsyncClient) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await said(api, head + b'5\r\n{"pro\r\nZZ\r\n')
    assert refused(answer) == (400, "malformed_request")
    assert answer.count(b"HTTP/1.1") == 1


async def test_there_is_no_websocket(api: httpx.AsyncClient) -> None:
    asked = b"\r\nconnection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-key: AAAA\r\n\r\n"
    assert b"101" not in (await said(api, GET.replace(b"\r\n\r\n", asked)))[:12]
