"""Are 200 registered LoRAs served right, and in flat memory, where ten fit on the device?

python -m benchmarks.many_loras
Uploads small random LoRAs for shapes-flux to a service with one worker, and sends requests that name one to three of
them, a few of them often and each at least once. Some requests are repeated at the end with nothing else in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import save_file

from app.catalog import Catalog
from app.cli.bench import percentile
from app.cli.local_service import running
from app.loading.pipeline import load
from app.settings import Settings
from benchmarks import report
from benchmarks.joining.load import connect, run_job
from benchmarks.loras import MODEL, factors_of
from benchmarks.resident_memory import MB, worker_process
from training.shapes.world import COLORS, SHAPES, Caption

__all__ = ["Comparison", "Sample", "bodies", "compare", "serve", "upload", "write_loras"]

LORAS, REQUESTS, FIT, RANK = 200, 500, 10, 4
CLIENTS, EVERY, SETTLED, COMPARED = 16, 50, 200, 50
COLUMNS = ("requests", "resident MB", "above the first 200, MB", "LoRAs MB", "hits", "loads", "evictions", "after s")
EVENTS = ("hit", "loaded", "evicted")

Body = dict[str, Any]
Pixels = NDArray[np.int16]


@dataclass(frozen=True)
class Sample:
    """The worker after a number of requests: its memory, that of its LoRAs, and what became of those."""

    requests: int
    resident_bytes: int
    lora_bytes: int
    events: Mapping[str, int]
    after_s: float


@dataclass(frozen=True)
class Comparison:
    """Largest distances, of 255, of an image that was made among others: from the same request sent alone, and from
    that one without its LoRAs.
    """

    alone: int
    without: int


def write_loras(folder: Path, count: int) -> tuple[list[Path], int]:
    """Writes LoRA files for all blocks of the model; returns them and the bytes that one takes on a device."""
    transformer = load(Catalog.load(Settings()).models[MODEL], torch.device("cpu")).transformer
    torch.manual_seed(0)
    paths = [folder / f"style-{i:03}.safetensors" for i in range(count)]
    for path in paths:
        layers = factors_of(transformer, RANK)
        weights = {f"transformer.{name}.lora_A.weight": factors.down for name, factors in layers.items()}
        weights |= {f"transformer.{name}.lora_B.weight": factors.up for name, factors in layers.items()}
        save_file(weights, path)
    return paths, sum(factors.nbytes for factors in layers.values())


async def upload(http: httpx.AsyncClient, paths: Sequence[Path]) -> list[str]:
    """Registers the files, one after the other; returns their ids."""
    ids = []
    for path in paths:
        form = {"file": (path.name, path.read_bytes())}
        response = await http.post("/v1/loras", files=form, data={"base": MODEL})
        response.raise_for_status()
        ids.append(response.json()["id"])
    return ids


def bodies(loras: Sequence[str], count: int) -> list[Body]:
    """Different requests. Every LoRA comes at least once, if there are as many requests; the first ones come often."""
    rng = random.Random(0)  # noqa: S311 - a load, not a secret
    popularity = [1 / (i + 1) for i in range(len(loras))]
    firsts = [*loras, *rng.choices(loras, popularity, k=max(0, count - len(loras)))]
    rng.shuffle(firsts)
    requests = []
    for i, first in enumerate(firsts[:count]):
        others = rng.choices(loras, popularity, k=rng.choice((0, 0, 1, 2)))
        used = dict.fromkeys([first, *others])
        body: Body = {
            "model": MODEL,
            "prompt": str(Caption(color=rng.choice(COLORS), shape=rng.choice(SHAPES))),
            "seed": i,
            "num_inference_steps": 4,
            "loras": [{"id": lora, "scale": round(rng.uniform(0.3, 1.0), 2)} for lora in used],
        }
        if rng.random() < 0.5:
            body["nag"] = {"scale": 5.0, "negative_prompt": f"a {rng.choice(('small', 'large'))} shape"}
        requests.append(body)
    return requests


async def serve(
    url: str, worker: psutil.Process, requests: Sequence[Body], kept: Sequence[int], every: int
) -> tuple[list[Sample], dict[int, Pixels]]:
    """Sends all requests by clients that each wait for their response: a sample for each `every` of them, and the
    images at the places `kept`.

    Raises RequestFailed.
    """
    images: dict[int, Pixels] = {}
    waiting = iter(enumerate(requests))
    begun_s = perf_counter()
    completed = itertools.count(1)

    async def sample(count: int) -> Sample:
        events, lora_bytes = await _worker_metrics(http)
        return Sample(count, worker.memory_info().rss, lora_bytes, events, perf_counter() - begun_s)

    async def client() -> None:
        for place, body in waiting:
            job = await run_job(http, body)
            assert [lora["id"].partition("@")[0] for lora in job["loras"]] == [lora["id"] for lora in body["loras"]]
            if place in kept:
                images[place] = await _image(http, job)
            if (count := next(completed)) % every == 0:
                samples.append(await sample(count))
                print(f"{count}: {samples[-1].resident_bytes / MB:.0f} MB", file=sys.stderr, flush=True)

    async with connect(url) as http:
        samples = [await sample(0)]
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
    return sorted(samples, key=lambda sample: sample.requests), images


async def compare(url: str, requests: Sequence[Body], images: Mapping[int, Pixels]) -> list[Comparison]:
    """Repeats requests one at a time, with and without their LoRAs."""
    found = []
    async with connect(url) as http:
        for place, image in sorted(images.items()):
            alone, without = [
                await _image(http, await run_job(http, body))
                for body in (requests[place], requests[place] | {"loras": []})
            ]
            found.append(Comparison(int(np.abs(image - alone).max()), int(np.abs(image - without).max())))
    return found


async def _image(http: httpx.AsyncClient, job: Mapping[str, Any]) -> Pixels:
    file = (await http.get(job["outputs"][0]["url"])).raise_for_status().content
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image, dtype=np.int16)


async def _worker_metrics(http: httpx.AsyncClient) -> tuple[dict[str, int], int]:
    """Returns how often each event of LoRAs occurred in the one worker, and their bytes on its device."""
    targets = (await http.get("/metrics/workers")).raise_for_status().json()
    text = (await http.get(f"http://{targets[0]['targets'][0]}/metrics")).raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    events = dict.fromkeys(EVENTS, 0)
    events |= {s.labels["event"]: int(s.value) for s in samples if s.name == "nag_lora_events_total"}
    return events, int(sum(s.value for s in samples if s.name == "nag_lora_resident_bytes"))


def _read_times_ms(log: str) -> tuple[list[float], list[float]]:
    """Returns how long the first read of each LoRA's file took by the worker's log, and how long every further one."""
    first, later, seen = list[float](), list[float](), set[str]()
    for lora, read_ms in re.findall(r" lora_read .*?lora=(\S+).*?read_ms=([0-9.]+)", log):
        (later if lora in seen else first).append(float(read_ms))
        seen.add(lora)
    return first, later


def _described(times_ms: Sequence[float]) -> str:
    if not times_ms:
        return "none"
    return f"{len(times_ms)}, median {statistics.median(times_ms):.0f} ms, p95 {percentile(times_ms, 95):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_loras", description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--loras", type=int, default=LORAS)
    arguments = parser.parse_args()

    async def measure(url: str) -> tuple[list[Sample], list[Comparison]]:
        async with connect(url) as http:
            requests = bodies(await upload(http, paths), arguments.requests)
        kept = range(0, len(requests), max(1, len(requests) // COMPARED))
        samples, images = await serve(url, worker_process(), requests, kept, EVERY)
        return samples, await compare(url, requests, images)

    with tempfile.TemporaryDirectory(prefix="nag-bench-") as name:
        folder = Path(name)
        paths, one_bytes = write_loras(folder, arguments.loras)
        settings = {
            "NAG_DEVICE": "cpu", "NAG_MODELS": MODEL, "NAG_BATCH_BUDGET": "fixed",
            "NAG_LORA_MEMORY_BYTES": str(FIT * one_bytes), "NAG_LORA_HOST_BYTES": str(2 * FIT * one_bytes),
            "NAG_LORAS_PER_TENANT": str(arguments.loras),
        }  # fmt: skip
        with running(folder, settings=settings) as url:
            samples, compared = asyncio.run(measure(url))
        first, later = _read_times_ms((folder / "service.log").read_text(errors="replace"))
    settled = next((sample.resident_bytes for sample in samples if sample.requests >= SETTLED), 0)
    rows = [
        [
            str(sample.requests),
            f"{sample.resident_bytes / MB:.0f}",
            f"{(sample.resident_bytes - settled) / MB:+.0f}" if sample.requests >= SETTLED else "",
            f"{sample.lora_bytes / MB:.1f}",
            *(str(sample.events[event]) for event in EVENTS),
            f"{sample.after_s:.0f}",
        ]
        for sample in samples
    ]
    title = (
        f"{arguments.requests} requests of {MODEL}, all completed, with 1 to 3 of {arguments.loras} LoRAs each, "
        f"{CLIENTS} at a time, in room for {FIT} on the device and {2 * FIT} as read"
    )
    wrong = sum(comparison.alone > 1 for comparison in compared)
    most = max(comparison.alone for comparison in compared)
    least = min(comparison.without for comparison in compared)
    notes = [
        f"{len(compared)} of the images against the same requests alone: at most {most} of 255 apart, {wrong} by more "
        f"than 1. From the same requests without LoRAs they are at least {least} of 255 apart.",
        f"Reads of a file, {one_bytes / MB:.1f} MB each: for the first time {_described(first)}; again "
        f"{_described(later)}.",
    ]
    data = {
        "samples": [asdict(sample) for sample in samples],
        "compared": [asdict(comparison) for comparison in compared],
        "read_ms": {"first": first, "later": later},
    }
    report.write("many_loras", title, COLUMNS, rows, data, report.machine(), notes=notes)


if __name__ == "__main__":
    main()
