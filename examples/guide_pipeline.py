"""Makes the same image without and with a negative prompt: plain.png and guided.png."""

from pathlib import Path

import torch
from diffusers import FluxPipeline

import nag

MODEL = Path(__file__).parents[1] / "app/builtin/shapes-flux"


def generate(pipe: FluxPipeline):
    """Returns the image of seed 7; the seed is the same with and without guidance."""
    return pipe(
        "a shape",
        num_inference_steps=4,
        guidance_scale=0.0,
        height=64,
        width=64,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(7),
    ).images[0]


pipe = FluxPipeline.from_pretrained(MODEL)
generate(pipe).save("plain.png")
with nag.guide(pipe, negative_prompt="a red shape") as guidance:
    generate(pipe).save("guided.png")
print(f"{guidance.guided_steps} denoiser calls were guided, with {guidance.params[0]}")
