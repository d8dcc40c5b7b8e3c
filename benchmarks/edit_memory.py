"""What memory do waiting edits take in the API process?

python -m benchmarks.edit_memory
Starts an embedded Valkey and an API, sends all edits of a case at once, each over a connection of its own, and leaves
them in the queue: a worker is announced, but takes no job.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import httpx
import psutil
from PIL import Image

from app.queue import embedded
from app.queue.queue import Queue
from app.settings import Settings
from benchmarks import report
from benchmarks.listeners import api

MODEL, WORKER = "shapes-flux", "idle-1"
COLUMNS = (
    "edits",
    "upload, kB",
    "idle, MB",
    "peak, MB",
    "peak above idle, MB",
    "all waiting, MB",
    "all queued after, s",
)
SAMPLE_S = 0.01
MB = 10**6


@dataclass(frozen=True)
class Reading:
    """Resident memory of one API process in bytes."""

    edits: int
    upload_bytes: int
    idle_bytes: int
    peak_bytes: int
    waiting_bytes: int
    queued_s: float


def phone_photo() -> Mapping[str, bytes]:
    """Returns a JPEG of 12 megapixels that compresses well."""
    return {"image": _file(_gradient(4000, 3000), "JPEG", quality=60)}


def masked_canvas() -> Mapping[str, bytes]:
    """Returns a PNG of 16 megapixels in one colour, and a mask of its size."""
    mask = Image.new("RGBA", (4096, 4096), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (1024, 1024, 3072, 3072))
    return {"image": _file(Image.new("RGB", (4096, 4096), "teal"), "PNG"), "mask": _file(mask, "PNG")}


def large_upload() -> Mapping[str, bytes]:
    """Returns a JPEG of 12 megapixels and about 10 MB."""
    photo = _gradient(4000, 3000)
    noise = Image.frombytes("L", (1000, 750), random.Random(0).randbytes(750_000))  # noqa: S311
    photo.putalpha(noise.resize(photo.size))
    return {"image": _file(Image.merge("RGB", (photo.getchannel("A"), *photo.split()[:2])), "JPEG", quality=95)}


CASES: dict[str, tuple[int, Callable[[], Mapping[str, bytes]]]] = {
    "photo": (24, phone_photo),
    "canvas and mask": (40, masked_canvas),
    "large upload": (24, large_upload),
}


async def measure(count: int, files: Mapping[str, bytes]) -> Reading:
    """Memory of a new API process before, while and after `count` edits of these files are queued."""
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as folder:
        settings = Settings(data_dir=Path(folder), redis_url=None)
        server = embedded.start(settings)
        try:
            async with api(settings) as (port, process):
                return await _send(settings, port, process, count, files)
        finally:
            server.stop()


async def _send(
    settings: Settings, port: int, process: psutil.Process, count: int, files: Mapping[str, bytes]
) -> Reading:
    queue = Queue.connect(settings)
    await queue.registry.announce(WORKER, [MODEL], 600)
    url = f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits) as client:
        for _ in range(3):  # imports and caches of the first request
            (await client.get("/v1/models")).raise_for_status()
        idle_bytes = peak_bytes = process.memory_info().rss
        begun = perf_counter()
        requests = [asyncio.create_task(_edit(client, files)) for _ in range(count)]
        while await queue.depth(MODEL) < count:
            failed = next((request for request in requests if request.done()), None)
            if failed is not None:
                raise RuntimeError(f"an edit was not queued: {(await failed).text}")
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            await asyncio.sleep(SAMPLE_S)
        queued_s = perf_counter() - begun
        await asyncio.sleep(0.5)
        waiting_bytes = process.memory_info().rss
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    await queue.close()
    upload_bytes = sum(map(len, files.values()))
    return Reading(count, upload_bytes, idle_bytes, max(peak_bytes, waiting_bytes), waiting_bytes, queued_s)


async def _edit(client: httpx.AsyncClient, files: Mapping[str, bytes]) -> httpx.Response:
    return await client.post("/v1/images/edits", files=files, data={"prompt": "a red circle", "model": MODEL})


def _gradient(width: int, height: int) -> Image.Image:
    bands = [Image.linear_gradient("L").rotate(angle).resize((width, height)) for angle in (0, 90, 180)]
    return Image.merge("RGB", bands)


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edit_memory", description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="only this one; may be given several times")
    arguments = parser.parse_args()
    readings = {}
    for name in arguments.case or CASES:
        count, files = CASES[name]
        readings[name] = asyncio.run(measure(count, files()))
    rows = [
        [
            f"{reading.edits} x {name}",
            f"{reading.upload_bytes / 1000:.0f}",
            *(
                f"{size / MB:.0f}"
                for size in (
                    reading.idle_bytes,
                    reading.peak_bytes,
                    reading.peak_bytes - reading.idle_bytes,
                    reading.waiting_bytes,
                )
            ),
            f"{reading.queued_s:.1f}",
        ]
        for name, reading in readings.items()
    ]
    title = "Memory of the API process with edits waiting"
    data = {name: asdict(reading) for name, reading in readings.items()}
    report.write("edit_memory", title, COLUMNS, rows, data, report.machine())


if __name__ == "__main__":
    main()
