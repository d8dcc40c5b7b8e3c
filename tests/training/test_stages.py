"""What the stages draw to learn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.path import flow
from training.shapes.world import Scenes
from training.stages import Data, teacher_loss


class Told:
    """A denoiser that predicts nothing and remembers the noise levels it was told."""

    def __init__(self) -> None:
        self.levels: list[torch.Tensor] = []

    def encode(self, captions: list[str], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return ()

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, text: tuple[torch.Tensor, ...]) -> torch.Tensor:
        self.levels.append(timestep)
        return torch.zeros_like(x)


@pytest.mark.parametrize(("low_noise", "below_half"), [(1.0, 0.25), (2.0, 0.5)])
def test_the_teacher_learns_at_as_much_low_noise_as_is_asked(low_noise: float, below_half: float) -> None:
    """A position u stands at noise 3u/(1 + 2u), so half noise is at u = 1/4: a quarter of even ones or half."""
    generator = torch.Generator().manual_seed(0)
    told: Any = Told()
    data = Data(torch.zeros(8, 1), Scenes.sample(8, generator))
    teacher_loss(told, flow(timesteps=1.0), data, 4000, low_noise=low_noise)(generator)
    assert float((told.levels[0] < 0.5).float().mean()) == pytest.approx(below_half, abs=0.03)
