"""What joining requests with different guidance gains: against one by one, and against the bare pipeline.

64 requests, all with different prompts, negative prompts, scales and seeds, one by one and 16 at a time, against one
service; beside them the bare pipeline, 1 and 8 rows per call. Printed are images per second and how far each image of
the service lies from the same request made alone.

The embedded model takes milliseconds a step, of which the rest of a service is a large part. `--heads 24` replaces its
denoiser by one of random weights and so many attention heads (it has 6): it has 16 times the weights.
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
    """Returns the seconds for all, the images, and the batch that each was in."""
    with (
        httpx.Client(base_url=url, timeout=300, trust_env=False) as client,
        tqdm(total=len(asked), desc=name, mininterval=5.0) as bar,
    ):

        def one(body: dict[str, Any]) -> tuple[Any, int]:
            job = client.post("/v1/jobs", json=body, headers={"prefer": "wait=120"}).raise_for_status().json()
            assert job["status"] == "completed", job
            content = client.get(job["outputs"][0]["url"]).raise_for_status().content
            bar.update()
            with Image.open(io.BytesIO(content)) as image:
                return np.asarray(image, dtype=np.float32), int(job["batch_size"])

        list(map(one, asked[:2]))  # warm
        bar.reset()
        began_s = perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            made = list(pool.map(one, asked))
        return perf_counter() - began_s, [result[0] for result in made], [result[1] for result in made]


def write_wide_model(folder: Path, heads: int) -> Path:
    """Writes the default model with a denoiser of random weights and so many heads; returns a catalog of it alone."""
    catalog = Catalog.load(Settings())
    pipe = load(catalog.models[catalog.default], torch.device("cpu"))
    torch.manual_seed(0)
    pipe.transformer = type(pipe.transformer)(**{**pipe.transformer.config, "num_attention_heads": heads})
    pipe.save_pretrained(folder / "model")
    file = folder / "catalog.toml"
    file.write_text(f'default = "wide"\n[models.wide]\nextends = "{catalog.default}"\nrepository = "{folder}/model"\n')
    return file


def bare(asked: Sequence[dict[str, Any]], rows: int, settings: Settings) -> float:
    """Seconds for all through the pipeline and nothing else, so many rows a call."""
    catalog = Catalog.load(settings)
    entry = catalog.models[catalog.default]
    pipe = load(entry, torch.device("cpu"))

    def call(some: Sequence[dict[str, Any]]) -> None:
        with nag.guide(
            pipe,
            [request["nag"]["negative_prompt"] for request in some],
            scale=[request["nag"]["scale"] for request in some],
        ):
            pipe(
                [request["prompt"] for request in some],
                generator=[torch.Generator().manual_seed(request["seed"]) for request in some],
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--heads", type=int, metavar="N", help="of a denoiser with random weights")
    parser.add_argument("--requests", type=int, default=64, metavar="N")
    arguments = parser.parse_args()
    asked = requests()[: arguments.requests]
    took_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as name:
        catalog = write_wide_model(Path(name), arguments.heads) if arguments.heads else None
        settings = Settings(catalog=catalog)
        with running(Path(name), catalog, settings={"NAG_MODELS": Catalog.load(settings).default}) as url:
            took_s["one by one"], alone, _ = through(url, asked, 1, "one by one")
            took_s[f"{CLIENTS} at a time"], mixed, batches = through(url, asked, CLIENTS, f"{CLIENTS} at a time")
        for size in (1, ROWS):
            took_s[f"bare pipeline, {size} row{'s' * (size > 1)} per call"] = bare(asked, size, settings)

    apart = [float(np.abs(a - b).max()) for a, b in zip(alone, mixed, strict=True)]
    columns = ("way", "images/s", "× one by one", f"× bare, {ROWS} rows")
    base, limit = took_s["one by one"], took_s[f"bare pipeline, {ROWS} rows per call"]
    rows = [
        [way, f"{len(asked) / taken:.2f}", f"{base / taken:.2f}", f"{limit / taken:.2f}"]
        for way, taken in took_s.items()
    ]
    title = (
        f"{len(asked)} requests with different prompts, negative prompts, scales and seeds; mean batch "
        f"{np.mean(batches):.1f}; an image from the same request alone: at most {max(apart):g} of 255 apart"
    )
    data = {"seconds": took_s, "batches": batches, "apart": apart}
    result = f"batching-heads-{arguments.heads}" if arguments.heads else "batching"
    report.write(result, title, columns, rows, data, f"{report.machine()}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
