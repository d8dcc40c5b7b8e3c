"""A server that is told of jobs: real, on a port of its own, and as unkind as a test wants it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from standardwebhooks import Webhook

from app.settings import Settings

SECRET = "whsec_" + base64.b64encode(b"a secret of 32 bytes, no less...").decode()
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def answer(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Said", "content-length: 0", *headers, "", ""]).encode()


def with_webhooks(settings: Settings, **changes: Any) -> Settings:
    """Signing, allowed to reach this machine, and quick to try again."""
    own = {"webhook_secret": SECRET, "webhook_allow": (ip_network("127.0.0.0/8"),), "webhook_retry_s": 0.005}
    return settings.model_copy(update=own | changes)


@dataclass
class Receiver:
    """Answers each request in turn with one of `answers`, then with 204; one that is a coroutine writes for itself."""

    port: int = 0
    answers: list[bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]] = field(default_factory=list)
    told: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)  # path, headers, body

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def hears(self, count: int) -> list[dict[str, Any]]:
        """The messages, once there are so many; each one's signature is checked."""
        async with asyncio.timeout(60):
            while len(self.told) < count:  # noqa: ASYNC110 - the product is in no hurry
                await asyncio.sleep(0.01)
        return [Webhook(SECRET).verify(body, headers) for _, headers, body in self.told]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.told]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.told.append((head[0].split(" ")[1], headers, body))
            said = self.answers.pop(0) if self.answers else OK
            if isinstance(said, bytes):
                writer.write(said)
            else:
                await said(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(port: int = 0, answers: list[Any] | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers=answers or [])
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", port)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def body(receiver: Receiver, **webhook: Any) -> dict[str, Any]:
    """A request whose end is told there."""
    return json.loads(json.dumps({"prompt": "a shape", "webhook": {"url": receiver.url(), **webhook}}))
