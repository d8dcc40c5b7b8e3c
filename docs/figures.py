"""Draws the strips of docs/concepts/parameters.md: `python -m docs.figures`, after shapes-flux was trained again.

Each row has the same seeds, those whose plain image shows a red shape, at one value of one parameter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image, ImageDraw, ImageFont

import nag
from training.shapes.judge import read

DOCS = Path(__file__).parent
PROMPT, NEGATIVE = "a shape", "a red shape"
SEEDS_SCANNED, SEEDS_SHOWN = 64, 9
#: The values of each strip, and what else is set.
STRIPS: dict[str, tuple[tuple[float, ...], dict[str, float]]] = {
    "scale": ((1, 2, 3, 5, 9, 15), {}),
    "tau": ((1, 1.5, 2.5, 5, 10), {"scale": 15, "alpha": 0.5}),
    "alpha": ((0, 0.125, 0.25, 0.5, 1), {}),
    "end": ((0, 0.25, 0.5, 0.75, 1), {}),
}
ZOOM, MARGIN_PX, LABEL_PX, FONT_PX = 1, 4, 84, 15


def images(pipe: FluxPipeline, seeds: list[int], numbers: dict[str, Any]) -> list[Image.Image]:
    """Returns an image of each seed, guided by the numbers."""
    options: dict[str, Any] = {"height": 64, "width": 64, "max_sequence_length": 16}
    with nag.guide(pipe, NEGATIVE, **numbers):
        generated = pipe(
            [PROMPT] * len(seeds),
            num_inference_steps=4,
            guidance_scale=0.0,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **options,
        )
    result: list[Image.Image] = generated.images
    return result


def strip(name: str, pipe: FluxPipeline, seeds: list[int]) -> Image.Image:
    """Returns one row of images for each value of a parameter."""
    values, others = STRIPS[name]
    cell = 64 * ZOOM + MARGIN_PX
    sheet = Image.new("RGB", (LABEL_PX + cell * len(seeds) + MARGIN_PX, cell * len(values) + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    for row, value in enumerate(values):
        top = MARGIN_PX + row * cell
        draw.text((MARGIN_PX, top + cell // 2 - FONT_PX), f"{name} {value:g}", "black", font)
        for column, image in enumerate(images(pipe, seeds, others | {name: value})):
            enlarged = image.resize((64 * ZOOM, 64 * ZOOM), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (LABEL_PX + column * cell, top))
    return sheet


def main() -> None:
    """Writes every strip into docs/assets."""
    pipe = FluxPipeline.from_pretrained(DOCS.parent / "app/builtin/shapes-flux")
    pipe.set_progress_bar_config(disable=True)
    plain = images(pipe, list(range(SEEDS_SCANNED)), {"scale": 1.0})
    readings = read(np.stack([np.asarray(image) for image in plain]))
    seeds = [seed for seed, reading in enumerate(readings) if reading.color == "red"][:SEEDS_SHOWN]
    for name in STRIPS:
        strip(name, pipe, seeds).save(DOCS / "assets" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
