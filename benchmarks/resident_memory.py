"""Does a worker's memory stay flat over many mixed requests?

python -m benchmarks.resident_memory
Sends images of 2 to 50 steps with and without CFG, NAG and previews, and edits with and without a mask, to one worker.
Its resident memory is read after each hundred of them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import psutil
from PIL import Image, ImageDraw

from benchmarks import report
from benchmarks.joining.load import RequestFailed, connect, run_job
from benchmarks.joining.mixes import images
from benchmarks.joining.services import ROOT, service

COLUMNS = ("requests", "resident MB", "above the first 200, MB", "after s")
EVERY = 100
SETTLED = 200  # requests after which caches are filled
EDIT_SHARE, MASK_SHARE, PREVIEW_SHARE = 0.2, 0.5, 0.3
CLIENTS = 16
MB = 10**6

Body = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """The worker's resident memory after a number of requests."""

    requests: int
    resident_bytes: int
    after_s: float


@dataclass(frozen=True)
class Request:
    """A job's body, or an edit with its files."""

    body: Body
    files: Mapping[str, bytes] | None = None


def requests(seed: int) -> Iterator[Request]:
    """Yields requests without end, the same ones for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - a load, not a secret
    for body in images(rng):
        if rng.random() < EDIT_SHARE:
            yield Request(body | {"strength": rng.choice((0.3, 0.6, 0.9))}, _files(rng))
        else:
            yield Request(body | {"previews": 3 if rng.random() < PREVIEW_SHARE else 0})


async def measure(url: str, worker: psutil.Process, count: int, every: int, clients: int = CLIENTS) -> list[Sample]:
    """Sends `count` requests by clients that each wait for their response; a sample for each `every` of them.

    Raises RequestFailed.
    """
    samples = [Sample(0, worker.memory_info().rss, 0.0)]
    wanted = itertools.islice(requests(0), count)
    begun_s = perf_counter()
    completed = 0

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal completed
        for request in wanted:
            await send(http, request)
            completed += 1
            if completed % every == 0:
                samples.append(Sample(completed, worker.memory_info().rss, perf_counter() - begun_s))
                print(f"{completed}: {samples[-1].resident_bytes / MB:.0f} MB", file=sys.stderr, flush=True)

    async with connect(url) as http, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(http))
    return samples


async def send(http: httpx.AsyncClient, request: Request) -> None:
    """Sends a request and waits for its image. Raises RequestFailed."""
    if request.files is None:
        await run_job(http, request.body)
        return
    form = {name: value for name, value in request.body.items() if name != "nag"}
    form |= {f"nag[{name}]": value for name, value in request.body.get("nag", {}).items()}
    response = await http.post("/v1/images/edits", data=form, files=dict(request.files))
    if response.is_error:
        raise RequestFailed(f"{response.status_code} {response.text}")


def worker_process() -> psutil.Process:
    """Returns the worker among the processes that this one has started."""
    return next(process for process in psutil.Process().children(recursive=True) if process.cmdline()[-1] == "worker")


def _files(rng: random.Random) -> Mapping[str, bytes]:
    start = Image.new("RGB", (64, 64), rng.choice(("white", "black", "gray")))
    ImageDraw.Draw(start).ellipse((16, 16, 48, 48), fill=rng.choice(("red", "green", "blue")))
    if rng.random() >= MASK_SHARE:
        return {"image": _png(start)}
    mask = Image.new("RGBA", start.size, "black")
    mask.paste((0, 0, 0, 0), (8, 8, 56, 40))
    return {"image": _png(start), "mask": _png(mask)}


def _png(source: Image.Image) -> bytes:
    file = io.BytesIO()
    source.save(file, "PNG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resident_memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=1500)
    count = parser.parse_args().requests
    with (
        tempfile.TemporaryDirectory(prefix="nag-bench-") as folder,
        service(ROOT, Path(folder) / "service") as url,
    ):
        samples = asyncio.run(measure(url, worker_process(), count, EVERY))
    settled = next((sample.resident_bytes for sample in samples if sample.requests >= SETTLED), 0)
    rows = [
        [
            str(sample.requests),
            f"{sample.resident_bytes / MB:.0f}",
            f"{(sample.resident_bytes - settled) / MB:+.0f}" if sample.requests >= SETTLED else "",
            f"{sample.after_s:.0f}",
        ]
        for sample in samples
    ]
    title = f"Resident memory of one worker over {count} mixed requests, {CLIENTS} at a time"
    report.write("resident_memory", title, COLUMNS, rows, [asdict(sample) for sample in samples], report.machine())


if __name__ == "__main__":
    main()
