"""Progress through schedulers that call the denoiser more often than once per step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from app.catalog import Model
from app.jobs import Guidance, Job
from app.worker.batching import Row
from app.worker.denoise import Hooks, denoise
from tests.tiny import CASES

Make = Callable[..., Job]
STEPS = 6
BY_NAME = {case.name: case for case in CASES}
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")
SCHEDULERS = [
    DDIMScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler, PNDMScheduler
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers' second-order schedulers
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("name", "calls_apart_max"), [("sd", 1), ("pixart", 2)])  # PixArt calls back once per step
def test_progress_is_the_share_of_denoiser_calls(
    name: str, calls_apart_max: int, scheduler: Any, entry: Model, make_job: Make
) -> None:
    case = BY_NAME[name]
    pipe = case.make(0)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    call = {key: value for key, value in case.options.items() if key not in ("guidance_scale", "width", "height")}
    if name == "pixart":
        call["use_resolution_binning"] = False
    tiny = entry.model_copy(update={"id": name, "call": call, "cfg": "guidance_scale", "embedded_guidance": None})
    side = case.options.get("height", 16)
    job = make_job("a", num_inference_steps=STEPS, width=side, height=side, nag=NAG)
    calls = 0
    told: list[tuple[int, int]] = []

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    denoiser.register_forward_pre_hook(count)
    hooks = Hooks(lambda done: told.append((calls, done)), on_denoised=lambda: told.append((calls, -1)))
    denoise(pipe, tiny, [Row(job, 0)], torch.device("cpu"), hooks)
    assert told.pop(-2) == (calls, -1)  # denoised after the last call alone
    assert told[-1] == (calls, STEPS)
    assert all(done < STEPS for _, done in told[:-1])
    assert all(abs(done / STEPS - at / calls) < 1.5 / STEPS for at, done in told)
    apart = [later - earlier for (earlier, _), (later, _) in pairwise(told)]
    assert max(apart) <= calls_apart_max
