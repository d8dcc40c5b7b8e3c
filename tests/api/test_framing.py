"""Where requests end: every split of their bytes into packets, every coding, and known kinds of request smuggling.

An application that echoes its request stands in for the API, behind the API's own protocol on a real socket.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

from app.settings import Settings
from tests.api.framing import (
    AMBIGUOUS,
    BODIES,
    BROKEN_BODIES,
    HEAD,
    INNER,
    LAST,
    METHODS,
    OFFERS,
    listening,
    request,
    statuses,
)


@pytest.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    async with listening(settings) as port:
        yield port


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


@pytest.mark.parametrize("flood", [b"x-late: 1\r\n", b"x" * 100])
async def test_trailers_are_bounded(port: int, flood: bytes) -> None:
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    answer = await exchange(port, head, flood * 500)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_chunk_s_extension_is_bounded(port: int) -> None:
    answer = await exchange(port, HEAD + b"transfer-encoding: chunked\r\n\r\n5;a=", b"b" * 5000)
    assert answer.startswith(b"HTTP/1.1 431 ")
