"""Whether an answer is one that openapi.json tells of."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx

from app.api.openapi.__main__ import FILE

#: Given before the route is known: to a body that is sent where none is asked for, and to a method that is not.
ANYWHERE = {405, 408, 413, 415}


@cache
def paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    document = json.loads(FILE.read_text(encoding="utf-8"))
    found = sorted(document["paths"].items(), key=lambda each: "{" in each[0])
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), operations) for path, operations in found]


def undocumented(method: str, path: str, answer: httpx.Response) -> str | None:
    """What is wrong with it; None for a right one, and for a route that is not described."""
    operation = next((each.get(method.lower()) for pattern, each in paths() if pattern.fullmatch(path)), None)
    if operation is None or answer.status_code in ANYWHERE:
        return None
    said = operation["responses"].get(str(answer.status_code))
    if said is None:
        return f"{operation['operationId']} answers {answer.status_code}"
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind not in said.get("content", {kind: None}):
        return f"{operation['operationId']} answers {answer.status_code} as {kind}"
    return None
