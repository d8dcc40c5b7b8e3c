"""Guides one model from two threads, each with its own negative prompt: thread-0.png and thread-1.png.

The threads share the weights. Each has its own pipeline object, scheduler and tokenizers, which keep the state of a
call.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from diffusers import FluxPipeline

import nag

MODEL = Path(__file__).parents[1] / "app/builtin/shapes-flux"
OWN = ("scheduler", "tokenizer", "tokenizer_2")

shared = FluxPipeline.from_pretrained(MODEL)


def generate(thread: int, negative_prompt: str) -> None:
    """Saves the image of seed 7, guided away from the negative prompt."""
    parts = {name: copy.deepcopy(part) if name in OWN else part for name, part in shared.components.items()}
    pipe = FluxPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    with nag.guide(pipe, negative_prompt=negative_prompt):
        image = pipe(
            "a shape",
            num_inference_steps=4,
            guidance_scale=0.0,
            height=64,
            width=64,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(7),
        ).images[0]
    image.save(f"thread-{thread}.png")


with ThreadPoolExecutor() as pool:
    list(pool.map(generate, range(2), ["a red shape", "a circle"]))
