"""What requests with different LoRAs cost: joined, grouped by LoRA, and with adapters swapped for each request.

64 requests with 8 different LoRAs in turn, each with a prompt, a seed and guidance of its own, 16 at a time:

- joined: rows with different LoRAs share denoiser calls.
- grouped: the same engine, but only requests with equal LoRAs share a call.
- swapped: diffusers' pipeline, one request after the other, `set_adapters` before each.

And one denoiser call at the true width of Flux, whose rows all have different LoRAs, against the same call without.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

import nag
from app.catalog import Catalog, Model
from app.jobs import Generation, Guidance, Job, JobError, LoraUse
from app.loading.adapters import Factors
from app.loading.pipeline import load
from app.settings import Settings
from app.worker.engine.adapters import RowAdapters
from app.worker.engine.torch_engine import TorchEngine
from app.worker.protocol import JobControl
from app.worker.recorder import Recorder
from benchmarks import report
from benchmarks.batching import requests
from benchmarks.denoisers import Draw

MODEL, LORAS, CLIENTS, ROWS, STEPS, RANK = "shapes-flux", 8, 16, 8, 4, 16
#: Of the call at Flux's width: image and text tokens, and rows.
TOKENS, TEXT_TOKENS, WIDE_ROWS = 256, 64, 4


class Files:
    """LoRAs in a folder, by id."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def path(self, lora: str, model: Model) -> Path:  # noqa: ARG002 (of the worker's protocol)
        return self._paths[lora]


def factors_of(module: nn.Module, rank: int) -> dict[str, Factors]:
    """Small random factors for each linear layer within a block."""
    layers = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and "blocks" in name
    }
    return {
        name: Factors(torch.randn(rank, layer.in_features) * 0.05, torch.randn(layer.out_features, rank) * 0.05)
        for name, layer in layers.items()
    }


def write_loras(folder: Path, module: nn.Module) -> dict[str, Path]:
    """LoRA files for all blocks of a transformer."""
    paths = {f"lora-{i}": folder / f"{i}.safetensors" for i in range(LORAS)}
    for path in paths.values():
        weights: dict[str, torch.Tensor] = {}
        for name, factors in factors_of(module, RANK).items():
            weights |= {
                f"transformer.{name}.lora_A.weight": factors.down, f"transformer.{name}.lora_B.weight": factors.up,
            }  # fmt: skip
        save_file(weights, path)
    return paths


def jobs(entry: Model, count: int) -> list[Job]:
    """Different requests; each LoRA comes in turn, with another weight each time."""
    return [
        Job(
            id=str(i),
            request=Generation(
                model=entry.id, prompt=body["prompt"], negative_prompt=None, seed=body["seed"],
                num_inference_steps=STEPS, guidance_scale=1.0, width=entry.width.default, height=entry.height.default,
                n=1, output_format="png", output_compression=100,
                nag=Guidance(
                    body["nag"]["scale"], 2.5, 0.25, 1.0, negative_prompt=body["nag"]["negative_prompt"]
                ),
                loras=(LoraUse(f"lora-{i % LORAS}", 0.5 + 0.01 * i),),
            ),
        )
        for i, body in enumerate(requests()[:count])
    ]  # fmt: skip


def through_engine(catalog: Catalog, paths: Mapping[str, Path], asked: Sequence[Job], name: str) -> tuple[float, float]:
    """Returns the seconds for all jobs, CLIENTS at a time, and the mean number of images per denoiser call."""
    settings = Settings(device="cpu", batch_size=ROWS, batch_budget="fixed")
    engine = TorchEngine(catalog, settings, Recorder(), Files(paths))
    engine.start()
    try:
        engine.load(MODEL).result()

        def one(job: Job) -> int:
            output = engine.submit(job, {}, JobControl()).result()
            assert not isinstance(output, JobError), output
            bar.update()
            return output.batch_size

        with tqdm(total=len(asked), desc=name, mininterval=5.0) as bar, ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(one, asked[:LORAS]))  # warm, all LoRAs read
            bar.reset()
            begun_s = perf_counter()
            sizes = list(pool.map(one, asked))
            return perf_counter() - begun_s, sum(sizes) / len(sizes)
    finally:
        engine.close()


def swapped(entry: Model, paths: Mapping[str, Path], asked: Sequence[Job]) -> float:
    """Returns the seconds for all jobs through diffusers' pipeline with every LoRA loaded, one enabled per job."""
    pipe = load(entry, torch.device("cpu"))
    for lora, path in paths.items():
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=lora)

    def call(job: Job) -> None:
        request = job.request
        assert request.nag is not None
        pipe.set_adapters([use.id for use in request.loras], [use.scale for use in request.loras])
        with nag.guide(pipe, request.nag.negative_prompt, scale=request.nag.scale):
            pipe(
                request.prompt, generator=torch.Generator().manual_seed(request.seed), num_inference_steps=STEPS,
                guidance_scale=0.0, width=request.width, height=request.height, **entry.call,
            )  # fmt: skip

    call(asked[0])
    begun_s = perf_counter()
    for job in tqdm(asked, desc="swapped", mininterval=5.0):
        call(job)
    return perf_counter() - begun_s


@torch.no_grad()
def wide_call(rounds: int) -> tuple[float, float]:
    """Returns the seconds of a call at Flux's width without LoRAs, and with another one in each row: the least of the
    rounds.
    """
    draw = Draw("cpu", torch.float32)
    transformer = draw.build(diffusers.FluxTransformer2DModel, num_layers=1, num_single_layers=1)
    side = int(TOKENS**0.5)
    arguments = {
        "hidden_states": draw(WIDE_ROWS, TOKENS, 64),
        "encoder_hidden_states": draw(WIDE_ROWS, TEXT_TOKENS, 4096),
        "pooled_projections": draw(WIDE_ROWS, 768),
        "timestep": torch.ones(WIDE_ROWS),
        "img_ids": diffusers.FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32),
        "txt_ids": torch.zeros(TEXT_TOKENS, 3),
    }
    adapters = RowAdapters(transformer)
    for i in range(WIDE_ROWS):
        adapters.add(f"{i}", factors_of(transformer, RANK))
    mixed = [(LoraUse(f"{i}", 1.0),) for i in range(WIDE_ROWS)]

    def seconds(rows: Sequence[tuple[LoraUse, ...]]) -> float:
        begun_s = perf_counter()
        with adapters.rows(rows):
            transformer(**arguments)
        return perf_counter() - begun_s

    times = [(seconds([()] * WIDE_ROWS), seconds(mixed)) for _ in tqdm(range(rounds + 1), desc="at Flux's width")][1:]
    plain_s, mixed_s = (min(column) for column in zip(*times, strict=True))
    return plain_s, mixed_s


def only_equal(adapters: RowAdapters, loras: Any) -> Any:  # noqa: ARG001 (in the place of RowAdapters.key)
    """Returns the key by which only calls with equal LoRAs join, whatever their weights."""
    return tuple(use.id for use in loras)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the call at Flux's width")
    asked_for = parser.parse_args()
    catalog = Catalog.load(Settings())
    entry = catalog.models[MODEL]
    asked = jobs(entry, asked_for.requests)
    took_s: dict[str, float] = {}
    images: dict[str, float] = {"swapped": 1.0}
    with tempfile.TemporaryDirectory(prefix="nag-bench-") as name:
        paths = write_loras(Path(name), load(entry, torch.device("cpu")).transformer)
        took_s["joined"], images["joined"] = through_engine(catalog, paths, asked, "joined")
        key: Callable[..., Any] = RowAdapters.key
        RowAdapters.key = only_equal  # type: ignore[method-assign, assignment]
        try:
            took_s["grouped"], images["grouped"] = through_engine(catalog, paths, asked, "grouped")
        finally:
            RowAdapters.key = key  # type: ignore[method-assign]
        took_s["swapped"] = swapped(entry, paths, asked)
    plain_s, mixed_s = wide_call(asked_for.rounds)
    rows = [
        [way, f"{len(asked) / seconds:.2f}", f"{images[way]:.1f}", f"{took_s['swapped'] / seconds:.2f}"]
        for way, seconds in took_s.items()
    ]
    title = f"{len(asked)} requests with {LORAS} LoRAs in turn, {STEPS} steps with NAG, {CLIENTS} at a time, {MODEL}"
    wide = (
        f"A call at Flux's width (3072; 1 double and 1 single block, {TOKENS} + {TEXT_TOKENS} tokens, {WIDE_ROWS} "
        f"rows, rank {RANK} on every linear layer of the blocks): {plain_s:.2f} s without LoRAs, {mixed_s:.2f} s with "
        f"a different one in each row, {mixed_s / plain_s:.3f} times as long."
    )
    data = {"seconds": took_s, "images_per_call": images, "wide_s": {"plain": plain_s, "mixed": mixed_s}}
    columns = ("way", "images/s", "images per call", "× swapped")
    on = f"{report.machine()}, {torch.get_num_threads()} threads"
    report.write("loras", title, columns, rows, data, on, notes=[wide])


if __name__ == "__main__":
    main()
