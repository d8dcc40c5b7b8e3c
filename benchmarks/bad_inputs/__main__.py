"""What is answered to inputs meant to break in or to break down, a line each."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from app.auth import ApiKey, Scope
from app.auth.api_key import digest
from benchmarks import report
from benchmarks.bad_inputs.case import KEY
from benchmarks.bad_inputs.cases import CASES, LIMITS
from benchmarks.bad_inputs.sending import Answer, answer
from benchmarks.service_without_worker import paused

ENVIRONMENT = {
    **LIMITS,
    "NAG_API_KEYS": json.dumps(
        [ApiKey(id="cases", tenant="cases", sha256=digest(KEY), scopes=frozenset(Scope)).model_dump(mode="json")]
    ),
}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder, paused(Path(folder), **ENVIRONMENT) as (url, _):
        answers = asyncio.run(_answers(url))
        alive = httpx.get(f"{url}/healthz", trust_env=False).status_code == httpx.codes.OK
        faults = (Path(folder) / "api.log").read_text().count("unexpected_error")
    rows = [
        [case.group, case.name, found.text, found.message.replace("|", "\\|").replace("\n", " ")[:100]]
        for case, found in zip(CASES, answers, strict=True)
    ]
    others = sum(
        (found.status, found.code) != (case.status, case.code) for case, found in zip(CASES, answers, strict=True)
    )
    statuses = ", ".join(
        f"{count} × {status or 'closed'}" for status, count in sorted(Counter(a.status for a in answers).items())
    )
    title = (
        f"{len(CASES)} bad inputs over raw sockets ({statuses}); {others} answered otherwise than expected, "
        f"{faults} unexpected errors in the log, the API {'serves on' if alive else 'is gone'}"
    )
    data = [[case.group, case.name, found.status, found.code] for case, found in zip(CASES, answers, strict=True)]
    report.write("bad_inputs", title, ("kind", "input", "answer", "message"), rows, data, report.machine())
    return int(bool(others or faults or not alive))


async def _answers(url: str) -> list[Answer]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    return [await answer(address.hostname, address.port, case) for case in CASES]


if __name__ == "__main__":
    sys.exit(main())
