"""The way from noise to data: x = a·x₀ + s·ε, and the network's target v = p·ε − q·x₀, of which both ends follow.

Flow matching and variance preservation differ in the four numbers alone, so one teacher, one student and one step serve
every model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import DDIMScheduler, UniPCMultistepScheduler

#: Share of noise spent on deciding what the picture is (Esser et al. 2024, resolution-dependent shift): backgrounds and
#: colours fill the picture, so they are settled while it is nearly all noise.
SHIFT = 3.0
#: Of `flow_steps`, as many as the catalog allows; from there on a corrector would change what a step has done.
MAX_STEPS = 50


class Level(NamedTuple):
    """One noise level a row, each (B,): x = a·x₀ + s·ε, v = p·ε − q·x₀; `timestep` is what the network is told."""

    a: torch.Tensor
    s: torch.Tensor
    p: torch.Tensor
    q: torch.Tensor
    timestep: torch.Tensor

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return rows(self.a, clean) * clean + rows(self.s, clean) * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return rows(self.p, clean) * noise - rows(self.q, clean) * clean

    def clean(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Returns the x₀ that a prediction v for x amounts to."""
        scale = self.a * self.p + self.s * self.q
        return (rows(self.p / scale, x) * x) - rows(self.s / scale, x) * v

    def step(self, x: torch.Tensor, v: torch.Tensor, below: Level) -> torch.Tensor:
        """Returns where a straight step from here to `below` arrives: Euler for a flow, DDIM (Song et al. 2020)
        otherwise.
        """
        scale = self.a * self.p + self.s * self.q
        noise = (rows(self.q / scale, x) * x) + rows(self.a / scale, x) * v
        return below.noisy(self.clean(x, v), noise)

    def jump(self, x: torch.Tensor, arrived: torch.Tensor, below: Level) -> torch.Tensor:
        """Returns the v that takes `step` from x to `arrived`, in which it is linear."""
        scale = self.a * self.p + self.s * self.q
        slope = (below.s * self.a - below.a * self.s) / scale
        return (arrived - self.step(x, torch.zeros_like(x), below)) / rows(slope, x)


@dataclass(frozen=True)
class Path:
    """Noise levels by an even position u in [0, 1]: n sampling steps stand at u = 1, 1 − 1/n, …, and end at 0."""

    at: Callable[[torch.Tensor], Level]


def flow(timesteps: float) -> Path:
    """Rectified flow (Liu et al. 2022) as Flux's pipeline places it with FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    and as `flow_steps` does by itself; the network is told the noise level times `timesteps`."""

    def at(u: torch.Tensor) -> Level:
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        one = torch.ones_like(sigma)
        return Level(1 - sigma, sigma, one, one, timesteps * sigma)

    return Path(at)


def flow_steps() -> UniPCMultistepScheduler:
    """Euler's steps at the levels of `flow`, for a pipeline that leaves them to its scheduler, as Wan's does. There
    FlowMatchEulerDiscreteScheduler goes to almost no noise before its last step, which then does next to nothing."""
    return UniPCMultistepScheduler(
        solver_order=1,
        disable_corrector=list(range(MAX_STEPS)),
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SHIFT,
    )


def variance_preserving() -> Path:
    """v-prediction (Salimans & Ho 2022) on the noise levels of `ddim`, whose first is pure noise."""
    products = torch.cat([torch.ones(1), ddim().alphas_cumprod])

    def at(u: torch.Tensor) -> Level:
        # The scheduler's trailing spacing: step i of n stands at timestep round(1000·(1 − i/n)) − 1.
        index = (u * (len(products) - 1)).round().long()
        product = products.to(u.device)[index]
        a, s = product.sqrt(), (1 - product).sqrt()
        return Level(a, s, a, s, (index - 1).clamp(min=0))

    return Path(at)


def ddim() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, rescaled to end in pure noise (Lin et al. 2023): backgrounds fill the picture,
    and the original leaves a trace of them in its noisiest level."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,  # means nothing to this spacing; the pipeline warns of any other value
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def rows(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) → (B, 1, …), to meet a tensor of rows."""
    return values.view(-1, *[1] * (like.ndim - 1))
