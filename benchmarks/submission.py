"""How long a job's submission takes at 200 requests a second, and whether any accepted job is missing.

One API process with the worker paused. Open loop: each request is sent at its time, however late the answers are; a
latency counts from then. Afterwards every accepted job is asked for by its id, and the queue is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from app.jobs import JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from benchmarks import report
from benchmarks.service_without_worker import paused

MODEL = "shapes-flux"
COLUMNS = (
    "requests",
    "sent in s",
    "202",
    "other answers",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "most ms",
    "accepted",
    "missing",
    "queued",
)
BODY = b'{"prompt": "a small red circle on a white background", "negative_prompt": "a blue shape", "seed": %d}'
HEAD = b"POST /v1/jobs HTTP/1.1\r\nhost: nag\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Measurement:
    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    count = round(arguments.rate * arguments.seconds)
    limits = {"NAG_QUEUE_LIMIT": str(2 * count), "NAG_QUEUE_LIMIT_PER_MODEL": str(2 * count)}
    busy = f"{os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder, paused(Path(folder), **limits) as (url, settings):
        measurement = asyncio.run(_sent(url, count, arguments.rate))
        missing, queued = asyncio.run(_missing(settings, measurement.ids))
    accepted = measurement.statuses["202"]
    row = [
        str(count), f"{measurement.took_s:.1f}", str(accepted), str(sum(measurement.statuses.values()) - accepted),
        *(f"{_percentile(measurement.latencies_ms, share):.1f}" for share in (0.5, 0.9, 0.99, 1.0)),
        str(len(measurement.ids)), str(missing), str(queued),
    ]  # fmt: skip
    late_ms = ", ".join(f"{_percentile(measurement.late_ms, share):.1f}" for share in (0.5, 0.99))
    title = (
        f"Submissions at {arguments.rate:g} a second for {arguments.seconds:g} s, open loop, to one API process with "
        f"the worker paused\n\nThe sender itself was late by {late_ms} ms (p50, p99), which is in the latencies. "
        f"{busy} programs waited for the {os.cpu_count()} cores before it began (load average of a minute)."
    )
    data = {"statuses": dict(measurement.statuses), "row": dict(zip(COLUMNS, row, strict=True))}
    report.write("submission", title, COLUMNS, [row], data, report.machine())
    return int(bool(missing or accepted != count or queued != accepted))


async def _sent(url: str, count: int, rate: float) -> Measurement:
    measurement, address = Measurement(), urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    free: list[Connection] = []
    begun_s = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due_s = begun_s + number / rate
            await asyncio.sleep(max(0.0, due_s - perf_counter()))
            measurement.late_ms.append((perf_counter() - due_s) * 1000)
            group.create_task(_submit(free, address.hostname, address.port, number, due_s, measurement))
        measurement.took_s = perf_counter() - begun_s
    for _, writer in free:
        writer.close()
    return measurement


async def _submit(
    free: list[Connection], host: str, port: int, number: int, due_s: float, measurement: Measurement
) -> None:
    """On a connection that is free, or on a new one. No HTTP library: on two cores it would take more than the API."""
    reader, writer = free.pop() if free else await asyncio.open_connection(host, port)
    body = BODY % number
    writer.write(HEAD % len(body) + body)
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
    except asyncio.IncompleteReadError:
        measurement.statuses["closed"] += 1
        return
    answer = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
    measurement.latencies_ms.append((perf_counter() - due_s) * 1000)
    free.append((reader, writer))
    status = head.split()[1].decode()
    measurement.statuses[status] += 1
    if status == "202":
        measurement.ids.append(json.loads(answer)["id"])


async def _missing(settings: Settings, ids: Sequence[str]) -> tuple[int, int]:
    """Accepted jobs that the queue's server does not hold as queued, and how many jobs the queue holds."""
    queue, missing = Queue.connect(settings), 0
    try:
        for start in range(0, len(ids), 50):
            jobs = await asyncio.gather(*map(queue.get, ids[start : start + 50]))
            missing += sum(job is None or job.status is not JobStatus.QUEUED for job in jobs)
        return missing, await queue.depth(MODEL)
    finally:
        await queue.close()


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    sys.exit(main())
