"""What the service adds to a request, over the same pipeline call made in process, at concurrency 1.

Starts a service of its own on loopback. Each round asks for the same seed three ways, one after the other, so that the
worker idles while the pipeline runs here: POST /v1/jobs with `Prefer: wait` and its result, POST
/v1/images/generations, and the bare diffusers call. Printed are the medians and the differences within a round, in ms.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import torch
from tqdm import tqdm

from app.catalog import Catalog
from app.cli.local_service import running
from app.settings import Settings
from app.worker.engine.pipelines import load, resolve_device
from benchmarks import report

PROMPT = "a small red circle"
BARE = "pipeline in process"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=8, help="rounds run before, and not counted")
    parser.add_argument("--limit-ms", type=float, default=15.0, help="most that the median difference may be")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="nag-bench-") as folder,
        running(Path(folder)) as url,
        httpx.Client(base_url=url, timeout=120, trust_env=False) as client,
    ):
        times_ms = measure(client, arguments.warmup, arguments.rounds)
    differences = tell(times_ms)
    slow = [name for name, difference_ms in differences.items() if difference_ms > arguments.limit_ms]
    print(f"limit {arguments.limit_ms:g} ms: " + (f"exceeded by {', '.join(slow)}" if slow else "kept"))
    return 1 if slow else 0


def measure(client: httpx.Client, warmup: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds a round, by way; each array has one entry a counted round."""
    ways: dict[str, Callable[[int], Any]] = {
        "POST /v1/jobs + result": lambda seed: by_job(client, seed),
        "POST /v1/images/generations": lambda seed: by_images(client, seed),
        BARE: in_process(),
    }
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in tqdm(range(-warmup, rounds), desc="rounds"):
        first = number % len(names)  # no way always follows the same other
        for name in names[first:] + names[:first]:
            began_s = perf_counter()
            ways[name](number + warmup)
            taken[name].append((perf_counter() - began_s) * 1000)
    return {name: np.array(each[warmup:]) for name, each in taken.items()}


def by_job(client: httpx.Client, seed: int) -> bytes:
    headers = {"prefer": "wait=60"}
    answer = client.post("/v1/jobs", json={"prompt": PROMPT, "seed": seed}, headers=headers).raise_for_status()
    return client.get(answer.json()["outputs"][0]["url"]).raise_for_status().content


def by_images(client: httpx.Client, seed: int) -> str:
    answer = client.post("/v1/images/generations", json={"prompt": PROMPT, "seed": seed}).raise_for_status()
    return str(answer.json()["data"][0]["b64_json"])


def in_process() -> Callable[[int], Any]:
    """Returns the default model's pipeline as anyone would call it, with the arguments the service fills in."""
    settings = Settings()
    catalog = Catalog.load(settings.model_copy(update={"catalog": None}))
    entry = catalog.models[catalog.default]
    device = resolve_device(settings.device)
    pipe = load(entry, device)

    def call(seed: int) -> Any:
        return pipe(
            prompt=PROMPT,
            generator=torch.Generator(device).manual_seed(seed),
            num_inference_steps=entry.num_inference_steps.default,
            guidance_scale=0.0,  # the embedded model has no distilled guidance; true CFG is off by default
            width=entry.width.default,
            height=entry.height.default,
            **entry.call,
        ).images[0]

    return call


def tell(times_ms: dict[str, np.ndarray]) -> dict[str, float]:
    """Prints and stores the table; the median difference to the bare call, by way."""
    columns = ("way", "median ms", "p95 ms", "median difference ms", "p95 difference ms")
    rows, differences = [], {}
    for name, taken in times_ms.items():
        row = [name, f"{np.median(taken):.1f}", f"{np.percentile(taken, 95):.1f}"]
        if name == BARE:
            row += ["", ""]
        else:
            more = taken - times_ms[BARE]
            differences[name] = float(np.median(more))
            row += [f"{differences[name]:.1f}", f"{np.percentile(more, 95):.1f}"]
        rows.append(row)
    data = {name: taken.round(3).tolist() for name, taken in times_ms.items()}
    device = str(resolve_device(Settings().device))
    on = f"{report.machine(device)}, {torch.get_num_threads()} threads"
    rounds = len(times_ms[BARE])
    report.write(
        "overhead", f"A request over HTTP and the same call in process, {rounds} rounds", columns, rows, data, on
    )
    return differences


if __name__ == "__main__":
    sys.exit(main())
