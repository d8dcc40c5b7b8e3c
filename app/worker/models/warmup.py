"""The first images of a loaded model: they warm it up, teach its previews and measure how many to denoise together."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import torch
from PIL import Image

from app.catalog import Model
from app.jobs import Generation, Guidance, InputFile, Job
from app.logs import Log
from app.worker.devices import memory
from app.worker.engine.module_runner import ModuleRunner
from app.worker.engine.pipeline_call import PipelineCall, run_calls

__all__ = ["BatchSize", "measure_batch_size", "trial_files", "trial_inputs", "trial_jobs", "trial_s", "warm_up"]

GAIN = 1.1  # in images per second, for which a denoiser call takes twice the images: each step then lasts longer
STEPS = 2  # what the first one alone sets up must not count for all of them
NEGATIVE = "blurry"
#: Of many colours, so that a sketch of the model learns them all.
PROMPTS = (
    "a red circle on a white background", "a blue square on a black background",
    "a green triangle on a gray background", "a yellow circle on a black background",
    "a purple square on a white background", "an orange triangle on a gray background",
    "a green circle on a white background", "a red square on a black background",
)  # fmt: skip
_log = Log("worker")


@dataclass(frozen=True)
class BatchSize:
    """The most images of the model's default size per denoiser call, why no more, and images per second by size."""

    images: int
    why: Literal["throughput", "memory", "setting"]
    images_per_s: dict[int, float]

    def table(self) -> str:
        """`1: 12.5/s, 2: 20.1/s`, for the log."""
        return ", ".join(f"{size}: {rate:.3g}/s" for size, rate in self.images_per_s.items())


def warm_up(
    entry: Model,
    make_call: Callable[[Job], PipelineCall],
    runner: ModuleRunner,
    device: torch.device,
    images_max: int | None,
) -> None:
    """Generates the model's first images, by which the most rows of a denoiser call are measured.

    Args:
        entry: of a loaded model.
        make_call: makes the pipeline call of a job.
        runner: gets what was measured as the model's limit.
        device: of the model.
        images_max: the most to measure; None leaves the runner's limit as it is.

    """
    begun_s = perf_counter()

    def run_s(count: int) -> float | None:
        seconds = trial_s(entry, make_call, count)
        if seconds is None:
            memory.free(device)
        return seconds

    found = measure_batch_size(run_s, images_max or 1)
    if images_max is not None:
        runner.set_images_max(entry, found.images)
    limit = runner.limit(entry)
    _log.info(
        "model_warm", model=entry.id, images=limit // entry.default_cost, limit=limit,
        why=found.why if images_max is not None else "setting", images_per_s=found.table(),
        warm_up_ms=(perf_counter() - begun_s) * 1000,
    )  # fmt: skip


def measure_batch_size(run_s: Callable[[int], float | None], most: int) -> BatchSize:
    """Tries denoiser calls of 1, 2, 4, … up to `most` images, until twice the images gain too little.

    `run_s(size)` is the seconds it took, or None where memory did not suffice. Raises MemoryError where one image does
    not fit.
    """
    rates: dict[int, float] = {}
    best, size = 0, 1
    while best < most:
        seconds = run_s(size)
        if seconds is None:
            if best == 0:
                raise MemoryError("one image does not fit into memory")
            return BatchSize(best, "memory", rates)
        rates[size] = size / seconds
        if best and rates[size] < GAIN * rates[best]:
            return BatchSize(best, "throughput", rates)
        best, size = size, min(2 * size, most)
    return BatchSize(best, "setting", rates)


def trial_files(entry: Model) -> dict[str, bytes]:
    """By artifact name, the files that the model's trial jobs start from: gray ones, in the roles that are required."""
    file = io.BytesIO()
    Image.new("RGB", (entry.width.default, entry.height.default), "gray").save(file, "PNG")
    return {trial.name: file.getvalue() for trial in trial_inputs(entry)}


def trial_inputs(entry: Model) -> tuple[InputFile, ...]:
    """Returns the files of the required roles, by the names that `trial_files` has them under."""
    return tuple(InputFile(role, f"trial-{role}") for role in entry.inputs.required_roles)


def trial_jobs(entry: Model, count: int) -> list[Job]:
    """Jobs by the model's defaults, but for the steps; guided where it can be, for that takes the most memory."""
    nag, steps = entry.nag, entry.num_inference_steps
    return [
        Job(
            id="trial",
            request=Generation(
                model=entry.id,
                prompt=PROMPTS[index % len(PROMPTS)],
                negative_prompt=NEGATIVE,
                seed=index,
                num_inference_steps=max(steps.min, min(STEPS, steps.max)),
                guidance_scale=entry.guidance_scale.default,
                width=entry.width.default,
                height=entry.height.default,
                n=1,
                output_format="png",
                output_compression=100,
                nag=Guidance(**nag.model_dump(), negative_prompt=NEGATIVE) if nag is not None else None,
                num_frames=entry.num_frames.default if entry.num_frames is not None else None,
                fps=entry.fps.default if entry.fps is not None else None,
                inputs=trial_inputs(entry),
            ),
        )
        for index in range(count)
    ]


def trial_s(entry: Model, make_call: Callable[[Job], PipelineCall], count: int) -> float | None:
    """Returns the seconds that so many images together take at the default number of steps; None if they do not fit."""
    jobs = trial_jobs(entry, count)
    calls = [make_call(job) for job in jobs]
    begun = perf_counter()
    try:
        run_calls(calls)
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None
    total_s = perf_counter() - begun
    denoise_s = max(call.made.denoise_ms for call in calls) / 1000
    share = entry.num_inference_steps.default / jobs[0].request.num_inference_steps
    return total_s + denoise_s * (share - 1)
