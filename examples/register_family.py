"""Registers a model of your own as a family with its own defaults, and guides it: posters.png."""

from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

import nag
from nag.families.flux import Flux

MODEL = Path(__file__).parents[1] / "app/builtin/shapes-flux"


class PosterTransformer(FluxTransformer2DModel):
    """A fine-tune with a class of its own."""


class Posters(Flux):
    """FLUX.1's layout, other defaults. The family that names the nearest class of a denoiser is its family."""

    name = "Poster model"
    models = "a fine-tune of FLUX.1"
    source = "an example"
    denoiser_types = ("PosterTransformer",)
    defaults = nag.NAGParams(scale=3.0, tau=2.0, alpha=0.25)


nag.register_family(Posters())

pipe = FluxPipeline.from_pretrained(MODEL)
pipe.transformer = PosterTransformer.from_pretrained(MODEL, subfolder="transformer")
with nag.guide(pipe, negative_prompt="a red shape") as guidance:
    image = pipe(
        "a shape",
        num_inference_steps=4,
        guidance_scale=0.0,
        height=64,
        width=64,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
image.save("posters.png")
print(f"guided by the family's own numbers: {guidance.params[0]}")
