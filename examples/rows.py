"""Makes three images in one batch, each with a negative prompt and a scale of its own: row-0.png to row-2.png."""

from pathlib import Path

import torch
from diffusers import FluxPipeline

import nag

MODEL = Path(__file__).parents[1] / "app/builtin/shapes-flux"
NEGATIVES = ["a red shape", "a circle", ""]
SCALES = [5.0, 9.0, 1.0]  # 1 is off: the last row is plain

pipe = FluxPipeline.from_pretrained(MODEL)
with nag.guide(pipe, negative_prompt=NEGATIVES, scale=SCALES):
    images = pipe(
        ["a shape"] * 3,
        num_inference_steps=4,
        guidance_scale=0.0,
        height=64,
        width=64,
        max_sequence_length=16,
        generator=[torch.Generator().manual_seed(7) for _ in range(3)],
    ).images
for row, image in enumerate(images):
    image.save(f"row-{row}.png")
