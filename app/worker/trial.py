"""A model's first pictures, which nobody asked for: they warm it up and tell how many it makes a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from app.catalog import Model
from app.jobs import Generation, Guidance, Job
from app.worker import memory
from app.worker.batching import Row
from app.worker.denoise import Hooks, denoise
from app.worker.previews import Previews, Sketch

__all__ = ["trial_s"]

STEPS = 2  # what the first one alone sets up must not count for all of them
NEGATIVE = "blurry"
#: Of many colours, so that a sketch of the model learns them all.
PROMPTS = (
    "a red circle on a white background", "a blue square on a black background",
    "a green triangle on a gray background", "a yellow circle on a black background",
    "a purple square on a white background", "an orange triangle on a gray background",
    "a green circle on a white background", "a red square on a black background",
)  # fmt: skip


def _trial_rows(entry: Model, count: int) -> list[Row]:
    """Pictures by the model's defaults, but for the steps; guided where it can be, for that takes the most memory."""
    nag = entry.nag
    steps = entry.num_inference_steps
    request = Generation(
        model=entry.id,
        prompt=PROMPTS[0],
        negative_prompt=NEGATIVE,
        seed=0,
        num_inference_steps=max(steps.min, min(STEPS, steps.max)),
        guidance_scale=entry.guidance_scale.default,
        width=entry.width.default,
        height=entry.height.default,
        n=count,
        output_format="png",
        output_compression=100,
        nag=Guidance(**nag.model_dump(), negative_prompt=NEGATIVE) if nag is not None else None,
        num_frames=entry.num_frames.default if entry.num_frames is not None else None,
        fps=entry.fps.default if entry.fps is not None else None,
    )
    return [
        Row(Job(id="trial", request=replace(request, prompt=PROMPTS[index % len(PROMPTS)])), index)
        for index in range(count)
    ]


def trial_s(pipe: Any, entry: Model, device: torch.device, count: int, *, sketch: Sketch | None = None) -> float | None:
    """Seconds that a batch of so many would take at the default number of steps; None where memory does not suffice."""
    rows = _trial_rows(entry, count)
    try:
        previews = None if sketch is None else Previews(sketch, rows, lambda _: None)  # it learns
        done = denoise(pipe, entry, rows, device, Hooks(previews=previews))
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        done = None
    if done is None:  # here, where the exception no longer holds what did not fit
        memory.free(device)
        return None
    share = entry.num_inference_steps.default / rows[0].request.num_inference_steps
    return (done.encode_ms + done.denoise_ms * share + done.decode_ms) / 1000
