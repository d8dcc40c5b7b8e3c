"""Requests that reach the API by nginx, also by one that is misconfigured: each is executed once, and nothing else.

The application counts what it is given, by paths that no two requests share.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.queue.queue import Queue
from app.settings import Settings
from tests.api.framing import (
    AMBIGUOUS,
    BODIES,
    BROKEN_BODIES,
    HEAD,
    INNER,
    METHODS,
    OFFERS,
    listening,
    request,
    statuses,
)
from tests.api.support import serving
from tests.nginx import needs_nginx, running_nginx
from tests.ports import free_ports

pytestmark = needs_nginx

#: nginx sends a length as well, so that the API must refuse every chunked request.
TWO_FRAMINGS = "the client's Transfer-Encoding is forwarded"
#: Of a location, by what is usual or wrong with it. `upstream` keeps connections to the API open.
CONFIGURATIONS = {
    "nothing but proxy_pass": "proxy_pass http://API;",
    "as the documentation has it": "proxy_pass http://API; proxy_http_version 1.1; proxy_buffering off;",
    "offers are forwarded, as for WebSockets": "proxy_pass http://API; proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
    "the same, bodies as they come": "proxy_pass http://API; proxy_http_version 1.1; proxy_request_buffering off; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
    "the client's Connection is forwarded": "proxy_pass http://upstream; proxy_http_version 1.1; "
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;",
    "connections are used again, bodies as they come": "proxy_pass http://upstream; proxy_http_version 1.1; "
    'proxy_request_buffering off; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "";',
    TWO_FRAMINGS: "proxy_pass http://API; proxy_set_header Transfer-Encoding $http_transfer_encoding;",
}
#: Connections at a time: nginx has 512 for both of its sides.
AT_ONCE = 50
#: Refused by nginx itself.
REFUSED_METHOD = "TRACE"


@dataclass
class RequestLog:
    """An application that notes the method, path and body of all that it is given."""

    given: list[tuple[str, str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.given.append((scope["method"], scope["path"], (await request.body()).decode()))
        await JSONResponse({})(scope, receive, send)


@pytest.fixture
def app() -> RequestLog:
    return RequestLog()


@pytest.fixture
async def ports(settings: Settings, app: RequestLog, tmp_path: Path) -> AsyncIterator[dict[str, int]]:
    """Of nginx, by its configuration."""
    async with listening(settings, app) as api:
        ports = dict(zip(CONFIGURATIONS, free_ports(len(CONFIGURATIONS)), strict=True))
        servers = {
            ports[name]: f"listen 127.0.0.1:{ports[name]}; location / {{ {directives} }}".replace(
                "http://API", f"http://127.0.0.1:{api}"
            )
            for name, directives in CONFIGURATIONS.items()
        }
        upstream = f"upstream upstream {{ server 127.0.0.1:{api}; keepalive 8; }}"
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, running_nginx(tmp_path, servers, [upstream]))
            yield ports
            await asyncio.to_thread(stack.close)


async def exchange(limit: asyncio.Semaphore, port: int, *packets: bytes) -> list[int]:
    """The status of each answer until nginx closes."""
    async with limit:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for packet in packets:
            writer.write(packet)
            await asyncio.sleep(0.01)  # nginx reads it by itself
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return statuses(answer)


def last(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()


async def test_each_request_is_executed_once_by_every_configuration(ports: dict[str, int], app: RequestLog) -> None:
    cases = list(product(ports, METHODS, OFFERS, BODIES, (1, 2)))
    limit, numbers = asyncio.Semaphore(AT_ONCE), count()
    expected, exchanges, wanted = Counter[tuple[str, str, str]](), [], {}
    for case in cases:
        configuration, method, offer, body, packets = case
        number = next(numbers)
        sent, behind = request(method, offer, body, f"/outer/{number}"), last(f"/last/{number}")
        split = len(sent) - len(BODIES[body][1])
        parts = [sent + behind] if packets == 1 else [sent[:split], sent[split:] + behind]
        exchanges.append(exchange(limit, ports[configuration], *parts))
        status = 405 if method == REFUSED_METHOD else 400 if (configuration, body) == (TWO_FRAMINGS, "chunked") else 200
        is_closed = method == REFUSED_METHOD or "close" in "".join(
            OFFERS[offer]
        )  # by nginx, which reads `close-not` so
        wanted[case] = [status] if is_closed else [status, 200]
        expected["GET", f"/last/{number}", ""] = len(wanted[case]) - 1
        if status == 200:
            expected[method, f"/outer/{number}", INNER.decode()] = 1
    answered = dict(zip(cases, await asyncio.gather(*exchanges), strict=True))
    assert {case: found for case, found in answered.items() if found != wanted[case]} == {}
    assert Counter(app.given) == +expected


async def test_an_ambiguous_request_is_refused_or_has_one_meaning(ports: dict[str, int], app: RequestLog) -> None:
    """nginx refuses some of them, and writes others in one way, such as lines that end in a line feed alone."""
    requests = AMBIGUOUS | {
        f"body: {kind}": HEAD + b"transfer-encoding: chunked\r\n\r\n" + body for kind, body in BROKEN_BODIES.items()
    }
    cases = list(product(ports, requests, (b"", b"connection: upgrade\r\nupgrade: h2c\r\n")))
    limit = asyncio.Semaphore(AT_ONCE)
    exchanges = []
    for number, (configuration, kind, offer) in enumerate(cases):
        sent = requests[kind].replace(b"host: x\r\n", b"host: x\r\n" + offer, 1)
        sent = sent.replace(b"/outer", b"/outer/%d" % number)
        exchanges.append(exchange(limit, ports[configuration], sent + last(f"/last/{number}")))
    answers = await asyncio.gather(*exchanges)
    wrong = {}
    for number, (case, found) in enumerate(zip(cases, answers, strict=True)):
        outer = [body for method, path, body in app.given if path == f"/outer/{number}"]
        behind = sum(path == f"/last/{number}" for _, path, _ in app.given)
        is_refused = not outer and found[:1] > [399] and found[1:] == [200] * behind
        is_executed = outer in [["hello"], ["hello\r"]] and found == [200] * (1 + behind)
        if case[1] == "HTTP/0.9":
            is_executed = (found, outer) == ([], [""])  # whose answers have no head
        if not is_refused and not is_executed:
            wrong[case] = (found, outer, behind)
    assert wrong == {}
    assert {path.split("/")[1] for _, path, _ in app.given} <= {"outer", "last"}


async def test_no_body_passes_a_rule_of_nginx(settings: Settings, queue: Queue, tmp_path: Path) -> None:
    """nginx refuses the job's route and forwards offers, as a configuration for WebSockets does."""
    async with serving(settings) as api:
        job = (await api.post("/v1/jobs", json={"prompt": "a shape"})).json()["id"]
        port = free_ports(1)[0]
        server = (
            f"listen 127.0.0.1:{port}; location = /v1/jobs {{ return 403; }}"
            f"location / {{ proxy_pass http://127.0.0.1:{api.base_url.port}; proxy_http_version 1.1; "
            "proxy_request_buffering off; proxy_set_header Upgrade $http_upgrade; "
            'proxy_set_header Connection "upgrade"; }'
        )
        with running_nginx(tmp_path, {port: server}):
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
