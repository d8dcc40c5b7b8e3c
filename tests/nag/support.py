from __future__ import annotations

import torch


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe, prompt="a red circle", seeds=None, **options):
    """Latents of a short run, a generator a picture."""
    count = (1 if isinstance(prompt, str) else len(prompt)) * options.get("num_images_per_prompt", 1)
    generators = [torch.Generator().manual_seed(seed) for seed in (seeds or range(count))]
    call = {"num_inference_steps": 4, "guidance_scale": 0.0, "height": 16, "width": 16, "output_type": "latent"}
    if hasattr(pipe, "transformer"):
        call["max_sequence_length"] = 16
    return pipe(prompt, generator=generators, **(call | options)).images


def difference(a, b):
    """‖a − b‖ / ‖b‖."""
    return float((a - b).norm() / b.norm())
