"""What joining requests with different guidance gains: against one by one, and against the bare pipeline.

64 requests, all with different prompts, negative prompts, scales and seeds, one by one and 16 at a time, against one
service; beside them the bare pipeline, 1 and 8 rows per call. Printed are images per second and how far each image of
the service lies from the same request made alone.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import nag
from app.catalog import Catalog
from app.cli.local_service import running
from app.loading.pipeline import load
from app.settings import Settings
from benchmarks import report
from training.shapes.world import BACKGROUNDS, COLORS, SHAPES, SIZES, Caption

REQUESTS, CLIENTS, ROWS = 64, 16, 8
STEPS = 4


def requests() -> list[dict[str, Any]]:
    """64 different ones."""
    captions = [
        Caption(size, color, shape, background)
        for size in SIZES
        for color in COLORS
        for shape in SHAPES
        for background in BACKGROUNDS
    ]
    return [
        {
            "prompt": str(captions[i]),
            "seed": 1000 + i,
            "num_inference_steps": STEPS,
            "nag": {"scale": 2.0 + 0.1 * i, "negative_prompt": str(captions[-1 - i])},
        }
        for i in range(REQUESTS)
    ]


def through(url: str, asked: Sequence[dict[str, Any]], at_once: int, name: str) -> tuple[float, list[Any], list[int]]:
    """Seconds for all, the pictures, and the batch each was in."""
    with (
        httpx.Client(base_url=url, timeout=300, trust_env=False) as client,
        tqdm(total=len(asked), desc=name, mininterval=5.0) as bar,
    ):

        def one(body: dict[str, Any]) -> tuple[Any, int]:
            job = client.post("/v1/jobs", json=body, headers={"prefer": "wait=120"}).raise_for_status().json()
            assert job["status"] == "completed", job
            picture = client.get(job["outputs"][0]["url"]).raise_for_status().content
            bar.update()
            with Image.open(io.BytesIO(picture)) as image:
                return np.asarray(image, dtype=np.float32), int(job["batch_size"])

        list(map(one, asked[:2]))  # warm
        bar.reset()
        began_s = perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            made = list(pool.map(one, asked))
        return perf_counter() - began_s, [each[0] for each in made], [each[1] for each in made]


def bare(asked: Sequence[dict[str, Any]], rows: int) -> float:
    """Seconds for all through the pipeline and nothing else, so many rows a call."""
    catalog = Catalog.load(Settings())
    entry = catalog.models[catalog.default]
    pipe = load(entry, torch.device("cpu"))

    def call(some: Sequence[dict[str, Any]]) -> None:
        with nag.guide(
            pipe, [each["nag"]["negative_prompt"] for each in some], scale=[each["nag"]["scale"] for each in some]
        ):
            pipe(
                [each["prompt"] for each in some],
                generator=[torch.Generator().manual_seed(each["seed"]) for each in some],
                num_inference_steps=STEPS,
                guidance_scale=0.0,
                width=entry.width.default,
                height=entry.height.default,
                **entry.call,
            )

    call(asked[:rows])
    began_s = perf_counter()
    for start in tqdm(range(0, len(asked), rows), desc=f"bare pipeline, {rows} rows", mininterval=5.0):
        call(asked[start : start + rows])
    return perf_counter() - began_s


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    asked = requests()
    took_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as name, running(Path(name)) as url:
        took_s["one by one"], alone, _ = through(url, asked, 1, "one by one")
        took_s["16 at a time"], mixed, batches = through(url, asked, CLIENTS, "16 at a time")
    took_s["bare pipeline, 1 row per call"] = bare(asked, 1)
    took_s["bare pipeline, 8 rows per call"] = bare(asked, ROWS)

    apart = [float(np.abs(a - b).max()) for a, b in zip(alone, mixed, strict=True)]
    columns = ("way", "images/s", "× one by one", "× bare, 8 rows")
    base, limit = took_s["one by one"], took_s["bare pipeline, 8 rows per call"]
    rows = [
        [way, f"{REQUESTS / taken:.2f}", f"{base / taken:.2f}", f"{limit / taken:.2f}"] for way, taken in took_s.items()
    ]
    title = (
        f"{REQUESTS} requests with different prompts, negative prompts, scales and seeds; mean batch "
        f"{np.mean(batches):.1f}; an image from the same request alone: at most {max(apart):g} of 255 apart"
    )
    data = {"seconds": took_s, "batches": batches, "apart": apart}
    report.write("batching", title, columns, rows, data, f"{report.machine()}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
