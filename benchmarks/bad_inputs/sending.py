"""A case on a socket of its own, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.bad_inputs.case import CLOSED, Case

__all__ = ["Answer", "answer"]

#: Above every limit of time that a case tries.
MOST_S = 60.0


@dataclass(frozen=True)
class Answer:
    """Status CLOSED where there was none; the error body's code and message, or ""."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return "closed without an answer" if self.status == CLOSED else f"{self.status} {self.code}".strip()


async def answer(host: str, port: int, case: Case) -> Answer:
    """Raises TimeoutError where nothing comes and nothing is closed."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(case.sent)
        async with asyncio.timeout(MOST_S):
            return await _read(reader)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return Answer(CLOSED, "", "", {})
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    error = json.loads(body).get("error") if body.startswith(b"{") else None
    error = error if isinstance(error, dict) else {"code": "", "message": ""}
    return Answer(int(first.split()[1]), error["code"], error["message"], headers)
