"""Two stages of a model: the teacher learns to denoise from data, the student the teacher's path in few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.models.bundle import Bundle, dropped
from training.path import Level, Path, rows
from training.shapes.world import World


@dataclass(frozen=True)
class Data:
    """Latents (N, …) as the denoiser takes them, and the scenes they show."""

    latents: torch.Tensor
    scenes: World

    def draw(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        drawn = torch.randint(len(self.latents), (batch,), generator=generator)
        captions = self.scenes.take(drawn).captions(generator)
        return self.latents[drawn.to(self.latents.device)], [str(caption) for caption in captions]


def teacher_loss(
    bundle: Bundle, path: Path, data: Data, batch: int, *, no_caption: float = 0.1, low_noise: float = 1.0
) -> Callable[[torch.Generator], torch.Tensor]:
    """Regress the path's target at a random noise level: at even positions to the power of `low_noise`."""

    def value(generator: torch.Generator) -> torch.Tensor:
        clean, captions = data.draw(batch, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        level = path.at(torch.rand(batch, generator=generator).pow(low_noise).to(clean.device))
        text = bundle.encode(dropped(captions, no_caption, generator), generator)
        return F.mse_loss(bundle.predict(level.noisy(clean, noise), level.timestep, text), level.target(clean, noise))

    return value


def student_loss(
    student: Bundle,
    teacher: Bundle,
    path: Path,
    data: Data,
    batch: int,
    *,
    steps: int = 4,
    substeps: int = 4,
    guidance_scale: float,
) -> Callable[[torch.Generator], torch.Tensor]:
    """Progressive distillation (Salimans & Ho 2022) in one go: each of `steps` jumps learns where `substeps` guided
    steps of the teacher arrive. Half the starts are noised data, half the student's own path from pure noise."""

    def level(position: torch.Tensor) -> Level:
        """At a (fractional) step of `steps`: pure noise at 0, data at `steps`."""
        return path.at(1.0 - position / steps)

    @torch.no_grad()
    def target(noisy: torch.Tensor, jump: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text = teacher.encode(captions + [""] * batch)
        x, at = noisy, level(jump)
        for i in range(substeps):
            twice = torch.cat([at.timestep, at.timestep])
            with_caption, without = teacher.predict(torch.cat([x, x]), twice, text).chunk(2)
            below = level(jump + (i + 1) / substeps)
            x = at.step(x, torch.lerp(without, with_caption, guidance_scale), below)
            at = below
        return level(jump).jump(noisy, x, at)

    @torch.no_grad()
    def own_path(noise: torch.Tensor, jump: torch.Tensor, text: tuple[torch.Tensor, ...]) -> torch.Tensor:
        x = noise
        for i in range(steps - 1):
            at, below = level(torch.full_like(jump, i)), level(torch.full_like(jump, i + 1))
            ahead = at.step(x, student.predict(x, at.timestep, text), below)
            x = torch.where(rows(jump > i, x), ahead, x)
        return x

    def value(generator: torch.Generator) -> torch.Tensor:
        clean, captions = data.draw(batch, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        jump = torch.randint(steps, (batch,), generator=generator).to(clean.device)
        text = student.encode(captions, generator)
        half = batch // 2
        own = own_path(noise[:half], jump[:half], tuple(each[:half] for each in text))
        at = level(jump)
        noisy = torch.cat([own, at.noisy(clean, noise)[half:]])
        return F.mse_loss(student.predict(noisy, at.timestep, text), target(noisy, jump, captions))

    return value
