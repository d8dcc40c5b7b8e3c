"""Two stages of a flow model: the teacher learns velocities from data, the student the teacher's path in few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.flux import Flux
from training.shapes.world import Caption, Scenes

#: Text lengths seen in training: prompts are padded without a mask, so a model knows only the lengths it has met.
TEXT_LENGTHS = (12, 16, 16, 24)

#: Share of noise spent on deciding what the picture is (Esser et al. 2024, resolution-dependent shift): backgrounds and
#: colours fill the picture, so they are settled while it is nearly all noise.
SHIFT = 3.0


def shifted(u: torch.Tensor) -> torch.Tensor:
    """Noise level sigma in [0, 1] for an even position u, as FlowMatchEulerDiscreteScheduler(shift=SHIFT) places it."""
    return SHIFT * u / (1 + (SHIFT - 1) * u)


@dataclass(frozen=True)
class Data:
    """Scaled, packed latents (N, tokens, channels) and the scenes they show."""

    latents: torch.Tensor
    scenes: Scenes

    def draw(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        rows = torch.randint(len(self.latents), (batch,), generator=generator)
        captions = Scenes(self.scenes.attributes[rows], self.scenes.place[rows]).captions(generator)
        return self.latents[rows.to(self.latents.device)], [str(caption) for caption in captions]


def dropped(captions: list[str], share: float, generator: torch.Generator) -> list[str]:
    keep = torch.rand(len(captions), generator=generator) >= share
    return [caption if kept else "" for caption, kept in zip(captions, keep.tolist(), strict=True)]


def text_length(generator: torch.Generator) -> int:
    return TEXT_LENGTHS[int(torch.randint(len(TEXT_LENGTHS), (), generator=generator))]


def teacher_loss(
    flux: Flux, data: Data, batch: int, *, no_caption: float = 0.1, no_pooled: float = 0.5
) -> Callable[[torch.Generator], torch.Tensor]:
    """Rectified flow matching (Liu et al. 2022): regress noise − data at a random noise level.

    The pooled prompt is dropped half the time so that, as in Flux, attention to the T5 tokens carries the caption.
    """

    def value(generator: torch.Generator) -> torch.Tensor:
        clean, captions = data.draw(batch, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        sigma = shifted(torch.rand(batch, generator=generator)).to(clean.device)
        captions = dropped(captions, no_caption, generator)
        states, pooled = flux.encode(captions, dropped(captions, no_pooled, generator), text_length(generator))
        noisy = torch.lerp(clean, noise, _rows(sigma))
        return F.mse_loss(flux.velocity(noisy, sigma, states, pooled), noise - clean)

    return value


def student_loss(
    student: Flux,
    teacher: Flux,
    data: Data,
    batch: int,
    *,
    steps: int = 4,
    substeps: int = 4,
    guidance_scale: float,
) -> Callable[[torch.Generator], torch.Tensor]:
    """Progressive distillation (Salimans & Ho 2022) in one go: each of `steps` jumps learns where `substeps` guided
    Euler steps of the teacher arrive. Half the starts are noised data, half the student's own path from pure noise."""

    @torch.no_grad()
    def target(noisy: torch.Tensor, jump: torch.Tensor, captions: list[str], length: int) -> torch.Tensor:
        states, pooled = teacher.encode(captions + [""] * batch, captions + [""] * batch, length)
        x, at = noisy, _level(jump, steps)
        for i in range(substeps):
            with_caption, without = teacher.velocity(torch.cat([x, x]), torch.cat([at, at]), states, pooled).chunk(2)
            below = _level(jump + (i + 1) / substeps, steps)
            x = x - _rows(at - below) * torch.lerp(without, with_caption, guidance_scale)
            at = below
        return (noisy - x) / _rows(_level(jump, steps) - at)

    @torch.no_grad()
    def own_path(noise: torch.Tensor, jump: torch.Tensor, states: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        x = noise
        for i in range(steps - 1):
            at, below = _level(torch.full_like(jump, i), steps), _level(torch.full_like(jump, i + 1), steps)
            ahead = x - _rows(at - below) * student.velocity(x, at, states, pooled)
            x = torch.where(_rows(jump > i), ahead, x)
        return x

    def value(generator: torch.Generator) -> torch.Tensor:
        clean, captions = data.draw(batch, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        jump = torch.randint(steps, (batch,), generator=generator).to(clean.device)
        sigma = _level(jump, steps)
        length = text_length(generator)
        # The student reads the pooled prompt of what the teacher was told, dropped as in the teacher's own training.
        states, pooled = student.encode(captions, dropped(captions, 0.3, generator), length)
        half = batch // 2
        own = own_path(noise[:half], jump[:half], states[:half], pooled[:half])
        noisy = torch.cat([own, torch.lerp(clean, noise, _rows(sigma))[half:]])
        return F.mse_loss(student.velocity(noisy, sigma, states, pooled), target(noisy, jump, captions, length))

    return value


@torch.no_grad()
def sample(
    flux: Flux, captions: list[Caption], noise: torch.Tensor, steps: int, length: int = 16, guidance_scale: float = 1.0
) -> torch.Tensor:
    """Euler steps from packed noise to packed latents, guided by the empty caption where guidance_scale > 1."""
    texts = [str(caption) for caption in captions]
    states, pooled = flux.encode(texts, texts, length)
    empty_states, empty_pooled = flux.encode([""] * len(texts), [""] * len(texts), length)
    x = noise
    for i in range(steps):
        sigma, below = (_level(torch.full((len(x),), at, device=x.device), steps) for at in (i, i + 1))
        v = flux.velocity(x, sigma, states, pooled)
        if guidance_scale != 1.0:
            v = torch.lerp(flux.velocity(x, sigma, empty_states, empty_pooled), v, guidance_scale)
        x = x - _rows(sigma - below) * v
    return x


def _level(position: torch.Tensor, steps: int) -> torch.Tensor:
    """Noise level at a (fractional) step of `steps`: 1 at step 0, 0 at the end."""
    return shifted(1.0 - position / steps)


def _rows(values: torch.Tensor) -> torch.Tensor:
    """(B,) → (B, 1, 1), to meet (B, tokens, channels)."""
    return values[:, None, None]
