"""Is the negative prompt obeyed, and at what price? Read from the pixels of an embedded model's pictures.

python -m benchmarks.suppression --model shapes-flux
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import nag
from benchmarks import report
from training.shapes.judge import Reading, read
from training.shapes.world import BACKGROUNDS, COLORS, SHAPES, Caption

FOLDER = Path(__file__).parents[1] / "app" / "builtin"
BATCH = 32
CFG_SCALES = (1.5, 2.0, 3.0, 5.0)
FIRST_SEED = 10_000


@dataclass(frozen=True)
class Way:
    """How a cell is guided; absent numbers are the family's defaults."""

    name: str
    cfg_scale: float = 1.0
    nag: bool = False
    reference: bool = False


@dataclass(frozen=True)
class Cell:
    """One row of the table: what was asked, how, and what the judge read, a picture a seed."""

    prompt: str
    negative: str | None
    way: Way
    readings: Sequence[Reading]
    captions: Sequence[Caption]
    distance: float | None = None  # root mean square over 8-bit values, to the same seeds' pictures by plain NAG

    @property
    def clean(self) -> float:
        return sum(r.clean for r in self.readings) / len(self.readings)

    @property
    def kept(self) -> float:
        """Share of pictures that show everything their caption names."""
        return sum(r.shows(c) for r, c in zip(self.readings, self.captions, strict=True)) / len(self.readings)

    @property
    def negative_shown(self) -> float | None:
        if self.negative is None:
            return None
        unwanted = Caption.parse(self.negative)
        return sum(r.shows(unwanted) for r in self.readings) / len(self.readings)

    def shares(self, attribute: str) -> dict[str, float]:
        counts = Counter(getattr(r, attribute) for r in self.readings)
        return {str(name): count / len(self.readings) for name, count in counts.items() if name is not None}

    @property
    def color_bits(self) -> float:
        """Entropy of the colours shown: how much of what the caption leaves free is still free."""
        return -sum(p * math.log2(p) for p in self.shares("color").values())


def pictures(pipe: Any, captions: Sequence[Caption], negative: str | None, way: Way, steps: int) -> Iterator[Any]:
    """8-bit pictures (b, H, W, 3) batch by batch; the picture at place i depends on seed FIRST_SEED + i alone."""
    for start in range(0, len(captions), BATCH):
        prompts = [str(caption) for caption in captions[start : start + BATCH]]
        generators = [torch.Generator().manual_seed(FIRST_SEED + start + i) for i in range(len(prompts))]
        cfg = (
            {"true_cfg_scale": way.cfg_scale, "negative_prompt": [negative] * len(prompts)} if way.cfg_scale > 1 else {}
        )
        with nag.guide(pipe, negative, reference=way.reference) if way.nag else nullcontext():
            images: NDArray[np.float32] = pipe(
                prompts,
                num_inference_steps=steps,
                guidance_scale=0.0,
                height=64,
                width=64,
                max_sequence_length=16,
                generator=generators,
                output_type="np",
                **cfg,
            ).images
        yield (images * 255).round().astype(np.uint8)


def measure(pipe: Any, seeds: int, steps: int) -> tuple[list[Cell], dict[str, NDArray[np.uint8]]]:
    free, named = [Caption()] * seeds, [Caption(color=COLORS[i % 6], shape=SHAPES[i // 6 % 3]) for i in range(seeds)]
    none, ours = Way("none"), Way("NAG", nag=True)
    authors = Way("NAG, the authors' layout", nag=True, reference=True)
    negatives = ("a red shape", "a circle", "a shape on a white background")
    asked: list[tuple[str, Sequence[Caption], str | None, Way]] = [
        ("a <color> <shape>", named, None, none),
        ("a <color> <shape>", named, "a small shape", ours),
    ]
    for unwanted in negatives:
        ways = [none, ours, authors, *(Way(f"CFG {scale:g}", cfg_scale=scale) for scale in CFG_SCALES)]
        asked += [("a shape", free, unwanted, way) for way in ways]
    cells: list[Cell] = []
    samples: dict[str, NDArray[np.uint8]] = {}
    unguided: list[Reading] | None = None
    by_nag = np.empty(0)
    with tqdm(total=len(asked) * seeds, unit="picture") as bar:
        for prompt, captions, negative, way in asked:
            distance = None
            if captions is free and way is none and unguided is not None:
                readings = unguided  # the same pictures, held against another negative
                bar.update(seeds)
            else:
                readings, shown = list[Reading](), []
                for batch in pictures(pipe, captions, negative, way, steps):
                    readings += read(batch)
                    shown.append(batch)
                    bar.update(len(batch))
                if way is ours:
                    by_nag = np.concatenate(shown)
                if way is authors:
                    difference = np.concatenate(shown).astype(np.float32) - by_nag
                    distance = float(np.sqrt(np.square(difference).mean()))
                if captions is free and negative == negatives[0] and way.cfg_scale in (1.0, CFG_SCALES[-1]):
                    samples[way.name] = np.concatenate(shown)[:12]
            if captions is free and way is none:
                unguided = readings
            cells.append(Cell(prompt, negative, way, readings, captions, distance))
    return cells, samples


def interval(share: float, count: int) -> str:
    """A share in % with its 95 % Wilson interval."""
    z, p = 1.96, share
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return f"{100 * p:.1f} ({100 * max(0.0, centre - half):.1f}–{100 * min(1.0, centre + half):.1f})"


def save_grid(samples: dict[str, NDArray[np.uint8]], path: Path) -> None:
    rows = [np.concatenate(list(batch), axis=1) for batch in samples.values()]
    Image.fromarray(np.concatenate(rows)).resize(
        (rows[0].shape[1] * 2, len(rows) * 128), Image.Resampling.NEAREST
    ).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="shapes-flux")
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    pipe = FluxPipeline.from_pretrained(FOLDER / arguments.model)
    pipe.set_progress_bar_config(disable=True)
    cells, samples = measure(pipe, arguments.seeds, arguments.steps)

    count = arguments.seeds
    columns = [
        "prompt",
        "negative",
        "guidance",
        "negative shown %",
        "clean %",
        "caption kept %",
        "colour entropy, bits",
        "distance to NAG",
    ]
    rows = [
        [
            cell.prompt,
            cell.negative or "",
            cell.way.name,
            "" if cell.negative_shown is None or cell.prompt != "a shape" else interval(cell.negative_shown, count),
            interval(cell.clean, count),
            interval(cell.kept, count),
            f"{cell.color_bits:.2f}",
            "" if cell.distance is None else f"{cell.distance:.1f}",
        ]
        for cell in cells
    ]
    unguided = next(cell for cell in cells if cell.prompt == "a shape")
    for attribute, names in (("color", COLORS), ("shape", SHAPES), ("background", BACKGROUNDS)):
        shares = unguided.shares(attribute)
        print(f'"a shape", unguided, {attribute}:', ", ".join(f"{n} {100 * shares.get(n, 0):.1f} %" for n in names))
    data = [dict(zip(columns, row, strict=True)) for row in rows]
    title = (
        f"Suppression on {arguments.model}: {count} seeds a row, {arguments.steps} steps, 95 % intervals; "
        f"NAG at the family's defaults ({nag.defaults_for(pipe)})"
    )
    report.write(f"suppression-{arguments.model}", title, columns, rows, data, report.machine())
    save_grid(samples, report.RESULTS / f"suppression-{arguments.model}.png")


if __name__ == "__main__":
    main()
