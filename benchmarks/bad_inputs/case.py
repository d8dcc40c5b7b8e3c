"""One bad input: the bytes on the socket, and the answer that is expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KEY", "Case", "get", "post", "raw"]

#: The secret of a key that may do everything; the cases that are not about keys send it.
KEY = "for-the-cases-alone"
JOBS = "/v1/jobs"
#: Besides a status: the connection is closed without an answer.
CLOSED = 0


@dataclass(frozen=True)
class Case:
    """`sent` goes out at once, then nothing more: the client waits for the answer, or for the end.

    `code` is that of the error body; "" where the answer is none of ours, or no error.
    """

    group: str
    name: str
    sent: bytes
    status: int
    code: str = ""


def raw(group: str, name: str, sent: bytes, status: int, code: str = "") -> Case:
    return Case(group, name, sent, status, code)


def get(
    group: str, name: str, path: str, status: int, code: str = "", *, method: str = "GET", **headers: str | bytes
) -> Case:
    return Case(group, name, _head(method, path, headers) + b"\r\n", status, code)


def post(
    group: str,
    name: str,
    body: Mapping[str, Any] | bytes,
    status: int,
    code: str = "",
    *,
    path: str = JOBS,
    kind: str = "application/json",
    **headers: str | bytes,
) -> Case:
    """Returns a mapping is sent as JSON beside a prompt; bytes as they are."""
    sent = body if isinstance(body, bytes) else json.dumps({"prompt": "a shape", **body}).encode()
    head = _head("POST", path, {"content-type": kind, "content-length": str(len(sent)), **headers})
    return Case(group, name, head + b"\r\n" + sent, status, code)


def _head(method: str, path: str, headers: Mapping[str, str | bytes]) -> bytes:
    """`x_y=...` is the header x-y; an empty value leaves it out."""
    lines = {"host": b"nag", "authorization": f"Bearer {KEY}".encode()}
    for name, value in headers.items():
        lines[name.replace("_", "-")] = value if isinstance(value, bytes) else value.encode("utf-8")
    text = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + text
