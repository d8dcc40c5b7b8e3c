"""Progress through schedulers that call the denoiser more often than once per step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from app.catalog import Model
from app.jobs import Guidance, Job
from app.worker.engine.pipeline_call import call_module
from app.worker.engine.pipelines import callbacks_of, step_arguments
from app.worker.engine.shared_model import SharedModel
from tests.tiers import one_of_each
from tests.tiny import CASES
from tests.worker.generate import difference, generate, make_calls

Make = Callable[..., Job]
STEPS = 6
BY_NAME = {case.name: case for case in CASES}
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")
SCHEDULERS = [
    DDIMScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler, PNDMScheduler
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers' second-order schedulers
@pytest.mark.parametrize("scheduler", one_of_each(3, SCHEDULERS))
@pytest.mark.parametrize(("name", "calls_apart_max"), [("sd", 1), ("pixart", 2)])  # PixArt calls back once per step
def test_progress_is_the_share_of_denoiser_calls(
    name: str, calls_apart_max: int, scheduler: Any, entry: Model, make_job: Make
) -> None:
    case = BY_NAME[name]
    pipe = case.make(0)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    options = {key: value for key, value in case.options.items() if key not in ("guidance_scale", "width", "height")}
    if name == "pixart":
        options["use_resolution_binning"] = False
    tiny = entry.model_copy(update={"id": name, "call": options, "cfg": "guidance_scale", "embedded_guidance": None})
    side = case.options.get("height", 16)
    job = make_job("a", num_inference_steps=STEPS, width=side, height=side, nag=NAG)
    model = SharedModel(tiny, pipe)
    (call,) = make_calls(model, job)
    steps: list[int] = []  # done before each call of the denoiser, and after the last one
    with torch.no_grad():
        call.start()
        while not call.has_ended:
            is_step = call.suspended.module.kind == "denoiser"
            if is_step:
                steps.append(call.steps_done)
            call.resume(call_module([call])[0])
    assert call.error is None
    calls = len(steps)
    steps.append(call.steps_done)
    assert steps[-1] == STEPS  # not before the last call
    assert all(done < STEPS for done in steps[:-1])
    assert steps == sorted(steps)
    changes = [(calls_made, done) for calls_made, (before, done) in enumerate(pairwise(steps), 1) if done > before]
    assert all(abs(done / STEPS - calls_made / calls) < 1.5 / STEPS for calls_made, done in changes)
    apart = [later - earlier for (earlier, _), (later, _) in pairwise(changes)]
    assert max(apart) <= max(calls_apart_max, -(-calls // STEPS))
    assert min(call.made.encode_ms, call.made.denoise_ms, call.made.decode_ms) > 0
    (alone, _) = generate(model, job, make_job("b", num_inference_steps=4, seed=3, width=side, height=side))
    assert difference(alone, call.made) <= 1


def test_a_pipeline_without_callbacks_is_followed_by_its_scheduler() -> None:
    class Silent:
        scheduler = FlowMatchEulerDiscreteScheduler()

        def __call__(self, num_inference_steps: int) -> torch.Tensor:
            self.scheduler.set_timesteps(num_inference_steps)
            latents = torch.ones(1)
            for timestep in self.scheduler.timesteps:
                (latents,) = self.scheduler.step(latents, timestep, latents, return_dict=False)
            return latents

    plain, pipe = Silent()(3), Silent()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    steps: list[tuple[int, float, int]] = []

    def then(own: Any, index: int, timestep: Any, _: dict[str, Any]) -> dict[str, Any]:
        steps.append((index, float(timestep), callbacks_of(own)))
        return {}

    assert step_arguments(pipe, then) == {}
    assert torch.equal(pipe(3), plain)
    assert steps == [(index, float(timestep), 3) for index, timestep in enumerate(pipe.scheduler.timesteps)]
