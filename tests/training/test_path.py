"""The path against the schedulers that the pipelines use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from training.path import SHIFT, Path, ddim, flow, flow_steps, variance_preserving

X, V = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)


@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize(
    ("path", "scheduler", "off"),  # `off`: in noise level; flow_steps ends in a thousandth
    [
        (flow(1000.0), FlowMatchEulerDiscreteScheduler(shift=SHIFT), 2.5e-6),
        (flow(1000.0), flow_steps(), 3e-3),
        (variance_preserving(), ddim(), 2.5e-6),
    ],
    ids=["flow", "flow-steps", "ddim"],
)
def test_a_step_is_the_schedulers(path: Path, scheduler: Any, off: float, steps: int) -> None:
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):  # as the pipelines space a flow
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    else:
        scheduler.set_timesteps(steps)
    x = X[None]
    for i, timestep in enumerate(scheduler.timesteps):
        at, below = (path.at(torch.tensor([1 - j / steps])) for j in (i, i + 1))
        assert float(at.timestep) == pytest.approx(float(timestep), abs=1000 * off)
        ours = at.step(x, V[None], below)
        x = scheduler.step(V[None], timestep, x).prev_sample
        assert torch.allclose(ours, x, atol=4 * off)


@pytest.mark.parametrize("path", [flow(1.0), variance_preserving()], ids=["flow", "ddim"])
def test_the_target_leads_to_the_data_and_a_jump_where_it_was_told(path: Path) -> None:
    clean, noise = X[None], V[None]
    at, end, midway = (path.at(torch.tensor([u])) for u in (0.6, 0.0, 0.3))
    noisy = at.noisy(clean, noise)
    assert torch.allclose(at.step(noisy, at.target(clean, noise), end), clean, atol=1e-5)
    assert torch.allclose(at.jump(noisy, midway.noisy(clean, noise), midway), at.target(clean, noise), atol=1e-4)
    anywhere = torch.flip(noisy, [-1])
    assert torch.allclose(at.step(noisy, at.jump(noisy, anywhere, midway), midway), anywhere, atol=1e-5)
