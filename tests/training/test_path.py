"""The path against the schedulers that the pipelines use."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from training.path import SHIFT, ddim, flow, variance_preserving

X, V = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)


@pytest.mark.parametrize("steps", [1, 4, 25])
@pytest.mark.parametrize(
    ("path", "scheduler"),
    [(flow(1000.0), FlowMatchEulerDiscreteScheduler(shift=SHIFT)), (variance_preserving(), ddim())],
    ids=["flow", "ddim"],
)
def test_a_step_is_the_schedulers(path, scheduler, steps):
    if "sigmas" in scheduler.set_timesteps.__code__.co_varnames:  # as the pipelines space a flow
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    else:
        scheduler.set_timesteps(steps)
    x = X[None]
    for i, timestep in enumerate(scheduler.timesteps):
        at, below = (path.at(torch.tensor([1 - j / steps])) for j in (i, i + 1))
        assert float(at.timestep) == pytest.approx(float(timestep), rel=1e-5)
        ours = at.step(x, V[None], below)
        x = scheduler.step(V[None], timestep, x).prev_sample
        assert torch.allclose(ours, x, atol=1e-5)


@pytest.mark.parametrize("path", [flow(1.0), variance_preserving()], ids=["flow", "ddim"])
def test_the_target_leads_to_the_data_and_a_jump_where_it_was_told(path):
    clean, noise = X[None], V[None]
    at, end, midway = (path.at(torch.tensor([u])) for u in (0.6, 0.0, 0.3))
    noisy = at.noisy(clean, noise)
    assert torch.allclose(at.step(noisy, at.target(clean, noise), end), clean, atol=1e-5)
    assert torch.allclose(at.jump(noisy, midway.noisy(clean, noise), midway), at.target(clean, noise), atol=1e-4)
    anywhere = torch.flip(noisy, [-1])
    assert torch.allclose(at.step(noisy, at.jump(noisy, anywhere, midway), midway), anywhere, atol=1e-5)
