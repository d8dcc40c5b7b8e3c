"""What the stages draw to learn from, and what they learn from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from training.critic import Critic
from training.path import flow
from training.shapes.world import Scenes
from training.stages import Data, Mixture, student_loss, teacher_loss

pytestmark = pytest.mark.slow  # trains

PATH = flow(timesteps=1.0)


class ScalingDenoiser(nn.Module):
    """A denoiser that predicts a multiple of its input, and remembers the noise levels it was given."""

    device = torch.device("cpu")

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.levels: list[torch.Tensor] = []

    @property
    def denoiser(self) -> ScalingDenoiser:
        return self

    def encode(self, captions: list[str], generator: torch.Generator | None = None) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(len(captions), 1, 1),)

    def predict(
        self, x: torch.Tensor, timestep: torch.Tensor, text: tuple[torch.Tensor, ...], reference: torch.Tensor | None
    ) -> torch.Tensor:
        self.levels.append(timestep)
        return self.factor * x

    def grid(self, x: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        return x


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    return Data(torch.randn(8, 1, 2, 2, generator=generator), None, Scenes.sample(8, generator))


def bundle(factor: float) -> Any:
    return ScalingDenoiser(factor)


@pytest.mark.parametrize(("low_noise", "below_half"), [(1.0, 0.25), (2.0, 0.5)])
def test_the_teacher_learns_at_as_much_low_noise_as_is_asked(low_noise: float, below_half: float, data: Data) -> None:
    """A position u stands at noise 3u/(1 + 2u), so half noise is at u = 1/4: a quarter of even ones or half."""
    teacher = bundle(0.0)
    teacher_loss(teacher, PATH, data, 4000, low_noise=low_noise)(torch.Generator().manual_seed(0))
    assert float((teacher.levels[0] < 0.5).float().mean()) == pytest.approx(below_half, abs=0.03)


def test_a_batch_is_of_one_kind_drawn_by_its_share(data: Data) -> None:
    generator = torch.Generator().manual_seed(0)
    with_reference = Data(data.latents, data.latents + 1, data.scenes)
    mixture = Mixture([data, with_reference], [1.0, 3.0])
    batches = [mixture.draw(4, generator) for _ in range(400)]
    given = [batch for batch in batches if batch.reference is not None]
    assert len(given) / len(batches) == pytest.approx(0.75, abs=0.07)
    for batch in given:
        assert batch.reference is not None
        assert torch.equal(batch.reference, batch.clean + 1)


def test_a_student_that_steps_as_its_teacher_has_nothing_to_learn(data: Data) -> None:
    for seed in range(8):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        equal, other = (
            student_loss(bundle(factor), bundle(0.5), PATH, data, 6, substeps=1, guidance_scale=2.0)(generator)
            for factor, generator in zip((0.5, 0.7), generators, strict=True)
        )
        assert float(equal.detach()) == pytest.approx(0.0, abs=1e-9)
        assert float(other.detach()) > 1e-3


def test_a_critic_moves_a_student_that_has_nothing_to_learn_from_its_teacher(data: Data) -> None:
    """Data has deviation 1 and the student's images have more, which a trained critic finds."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    student, critic = bundle(0.0), Critic(1, 1, width=8, blocks=1)
    rivals = student_loss(
        student, bundle(0.0), PATH, data, 64, substeps=1, guidance_scale=1.0, critic=critic, adversarial_weight=1.0
    )
    optimizer = torch.optim.Adam([*critic.parameters(), student.factor], lr=1e-2)
    before = student.factor.item()
    for _ in range(3):
        optimizer.zero_grad()
        rivals(generator).backward()
        assert student.factor.grad is not None
        assert student.factor.grad != 0
        optimizer.step()
    assert student.factor.item() != before
    assert all(parameter.grad is not None for parameter in critic.parameters())
