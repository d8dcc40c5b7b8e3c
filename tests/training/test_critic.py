"""The adversarial loss on distributions that are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from training.critic import Critic, adversarial_loss

pytestmark = pytest.mark.slow  # trains

LEVEL, TEXT = torch.zeros(64), torch.zeros(64, 1, 1)


def random_signs(generator: torch.Generator) -> Any:
    """Rows that are all 1 or all −1, which a regression to their mean would average to 0."""
    return torch.randint(2, (64, 1, 1, 1), generator=generator).mul(2).sub(1).float().expand(64, 1, 2, 2)


def test_each_side_has_gradients_of_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    critic = Critic(1, 1, width=8, blocks=1)
    scale = nn.Parameter(torch.tensor(0.1))
    generated = scale * torch.randn(64, 1, 2, 2, generator=generator)
    loss = adversarial_loss(critic, random_signs(generator), generated, LEVEL, TEXT, generator)
    loss.student.backward(retain_graph=True)
    assert scale.grad is not None
    assert all(parameter.grad is None for parameter in critic.parameters())
    scale.grad = None
    loss.critic.backward()
    assert scale.grad is None
    assert all(parameter.grad is not None for parameter in critic.parameters())


def test_a_generator_learns_both_modes_and_nothing_between() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    critic = Critic(1, 1, width=16, blocks=1)
    student = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam([*critic.parameters(), *student.parameters()], lr=2e-3, betas=(0.5, 0.98))
    for _ in range(600):
        generated = student(torch.randn(64, 1, generator=generator)).view(64, 1, 1, 1).expand(64, 1, 2, 2)
        loss = adversarial_loss(critic, random_signs(generator), generated, LEVEL, TEXT, generator)
        optimizer.zero_grad()
        (loss.student + loss.critic).backward()
        optimizer.step()
    made = student(torch.randn(1000, 1, generator=generator)).detach()
    assert float((made.abs() - 1).abs().lt(0.3).float().mean()) > 0.85
    assert 0.3 < float((made > 0).float().mean()) < 0.7
