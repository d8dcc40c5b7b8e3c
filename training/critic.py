"""An adversarial loss beside the regression: a critic compares the student's images with the scenes.

A regression alone averages: where the teacher's path turns sharply, as between two shapes, the student draws something
in between. A critic that sees noised latents and their captions (adversarial distillation, Sauer et al. 2024) rejects
that. The loss is the relativistic one with both gradient penalties (R3GAN, Huang et al. 2024), which needs no tricks to
be stable and to keep all modes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

__all__ = ["AdversarialLoss", "Critic", "adversarial_loss"]

#: Deviation of the noise by which the gradient penalties are estimated (Lin et al. 2025), and their weight.
PENALTY_STEP = 0.05
PENALTY = 0.5


class Critic(nn.Module):
    """A small residual network over latents (B, C, H, W), conditioned on their noise level and their captions."""

    def __init__(self, channels: int, text_width: int, width: int = 128, blocks: int = 4) -> None:
        super().__init__()
        self.words = nn.Sequential(nn.Linear(text_width, width), nn.SiLU(), nn.Linear(width, width))
        self.level = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.inside = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.outside = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Scores each place (B, H·W): the higher, the more real. `noise_level` (B,), `text` (B, length, width)."""
        condition = self.words(text).mean(1) + self.level(noise_level[:, None])
        hidden = self.inside(x)
        for block in self.blocks:
            hidden = block(hidden, condition)
        scores: torch.Tensor = self.outside(F.silu(hidden)).flatten(1)
        return scores


class _Block(nn.Module):
    """Two convolutions with a skip, their input scaled and shifted by the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
        hidden: torch.Tensor = self.second(F.silu(self.first(F.silu(x * (1 + scale) + shift))))
        return x + hidden


class AdversarialLoss(NamedTuple):
    """`student` has gradients of the student alone, `critic` of the critic alone."""

    student: torch.Tensor
    critic: torch.Tensor


def adversarial_loss(
    critic: Critic,
    real: torch.Tensor,
    generated: torch.Tensor,
    noise_level: torch.Tensor,
    text: torch.Tensor,
    generator: torch.Generator,
) -> AdversarialLoss:
    """Compares real with generated latents (B, C, H, W) of the same captions and noise levels."""
    frozen = {name: parameter.detach() for name, parameter in critic.named_parameters()}

    def frozen_scores(x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = functional_call(critic, frozen, (x, noise_level, text))
        return scores

    with torch.no_grad():
        target = frozen_scores(real)
    student = F.softplus(target - frozen_scores(generated)).mean()

    fake = generated.detach()
    nudges = PENALTY_STEP * torch.randn((2, *real.shape), generator=generator).to(real.device)
    rows = torch.cat([real, fake, real + nudges[0], fake + nudges[1]])
    scores = critic(rows, noise_level.repeat(4), text.detach().repeat(4, 1, 1))
    of_real, of_fake, of_nudged_real, of_nudged_fake = scores.chunk(4)
    steepness = ((of_nudged_real - of_real).mean(1).square() + (of_nudged_fake - of_fake).mean(1).square()).mean()
    penalty = PENALTY * steepness / PENALTY_STEP**2
    return AdversarialLoss(student, F.softplus(of_fake - of_real).mean() + penalty)
