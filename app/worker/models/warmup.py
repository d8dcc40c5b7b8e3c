"""The first images of a loaded model: they warm it up, teach its previews, and show how many to denoise together."""

from __future__ import annotations

import io
from collections.abc import Callable
from time import perf_counter

from PIL import Image

from app.catalog import Model
from app.jobs import Generation, Guidance, InputFile, Job
from app.logs import Log
from app.worker.engine.batch_limit import GAIN
from app.worker.engine.module_runner import ModuleRunner, RetryAloneError
from app.worker.engine.pipeline_call import PipelineCall, run_calls

__all__ = ["trial_files", "trial_inputs", "trial_jobs", "trial_s", "warm_up"]

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


def warm_up(entry: Model, make_call: Callable[[Job], PipelineCall], runner: ModuleRunner, *, measures: bool) -> None:
    """Generates the model's first images, and finds how many to denoise together.

    Args:
        entry: of a loaded model.
        make_call: makes the pipeline call of a job.
        runner: of the model.
        measures: whether to try 1, 2, 4, … images, as long as twice as many are faster.

    Raises:
        MemoryError: one image does not fit.

    """
    begun_s = perf_counter()
    images_per_s, best = {1: 1 / trial_s(entry, make_call, 1, runner)}, 1
    while measures and 2 * best * entry.default_cost <= runner.limit_max(entry):
        try:
            images_per_s[2 * best] = 2 * best / trial_s(entry, make_call, 2 * best, runner)
        except MemoryError:
            break  # the limit has fallen, as each group was halved before its last image failed
        if images_per_s[2 * best] < GAIN * images_per_s[best]:
            break
        best *= 2
    if measures:
        runner.start_limit(entry, best)
    _log.info(
        "model_warm", model=entry.id, images=runner.limit(entry) // entry.default_cost, limit=runner.limit(entry),
        images_per_s=", ".join(f"{size}: {rate:.3g}/s" for size, rate in images_per_s.items()),
        warm_up_ms=(perf_counter() - begun_s) * 1000,
    )  # fmt: skip


def trial_files(entry: Model) -> dict[str, bytes]:
    """Returns by artifact name the files that the model's trial jobs start from: gray ones, in the roles that are
    required.
    """
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


def trial_s(entry: Model, make_call: Callable[[Job], PipelineCall], count: int, runner: ModuleRunner) -> float:
    """Returns the seconds that so many images together take at the default number of steps.

    Raises MemoryError where one of them does not fit, even in a module call of its own.
    """
    jobs = trial_jobs(entry, count)
    calls = [make_call(job) for job in jobs]
    begun = perf_counter()
    try:
        run_calls(calls, runner.run)
    except RetryAloneError:
        raise MemoryError("one image does not fit into memory") from None
    total_s = perf_counter() - begun
    denoise_s = max(call.made.denoise_ms for call in calls) / 1000
    share = entry.num_inference_steps.default / jobs[0].request.num_inference_steps
    return total_s + denoise_s * (share - 1)
