"""Guides a pipeline of Modular Diffusers: modular.png."""

from pathlib import Path

import torch
from diffusers import FluxAutoBlocks, FluxModularPipeline, FluxPipeline

import nag

MODEL = Path(__file__).parents[1] / "app/builtin/shapes-flux"

pipe = FluxModularPipeline(blocks=FluxAutoBlocks())
pipe.update_components(**FluxPipeline.from_pretrained(MODEL).components)
with nag.guide(pipe, negative_prompt="a red shape"):
    images = pipe(
        prompt="a shape",
        num_inference_steps=4,
        guidance_scale=0.0,
        height=64,
        width=64,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(7),
        output="images",
    )
images[0].save("modular.png")
