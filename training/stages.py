"""Two stages of a model: the teacher learns to denoise from data, the student the teacher's path in few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.critic import Critic, adversarial_loss
from training.models.bundle import Bundle, dropped
from training.path import Level, Path
from training.shapes.world import World


@dataclass(frozen=True)
class Batch:
    """What a step learns from, in the denoiser's layout: `clean` rows, their captions and their reference images."""

    clean: torch.Tensor
    captions: list[str]
    reference: torch.Tensor | None


@dataclass(frozen=True)
class Data:
    """Latents (N, …) as the denoiser takes them, the scenes they show, and latents of their reference images."""

    latents: torch.Tensor
    references: torch.Tensor | None
    scenes: World

    def draw(self, batch: int, generator: torch.Generator) -> Batch:
        drawn = torch.randint(len(self.latents), (batch,), generator=generator)
        captions = [str(caption) for caption in self.scenes.take(drawn).captions(generator)]
        drawn = drawn.to(self.latents.device)
        return Batch(self.latents[drawn], captions, None if self.references is None else self.references[drawn])


@dataclass(frozen=True)
class Mixture:
    """Several kinds of data. A batch is of one kind, which is drawn by its share."""

    parts: Sequence[Data]
    shares: Sequence[float]

    def draw(self, batch: int, generator: torch.Generator) -> Batch:
        if len(self.parts) == 1:
            return self.parts[0].draw(batch, generator)
        part = int(torch.multinomial(torch.tensor(self.shares), 1, generator=generator))
        return self.parts[part].draw(batch, generator)


def teacher_loss(
    bundle: Bundle, path: Path, data: Data | Mixture, batch: int, *, no_caption: float = 0.1, low_noise: float = 1.0
) -> Callable[[torch.Generator], torch.Tensor]:
    """Regress the path's target at a random noise level: at even positions to the power of `low_noise`."""

    def value(generator: torch.Generator) -> torch.Tensor:
        drawn = data.draw(batch, generator)
        clean = drawn.clean
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        level = path.at(torch.rand(batch, generator=generator).pow(low_noise).to(clean.device))
        text = bundle.encode(dropped(drawn.captions, no_caption, generator), generator)
        predicted = bundle.predict(level.noisy(clean, noise), level.timestep, text, drawn.reference)
        return F.mse_loss(predicted, level.target(clean, noise))

    return value


def student_loss(
    student: Bundle,
    teacher: Bundle,
    path: Path,
    data: Data | Mixture,
    batch: int,
    *,
    steps: int = 4,
    substeps: int = 4,
    guidance_scale: float,
    critic: Critic | None = None,
    adversarial_weight: float = 0.0,
) -> Callable[[torch.Generator], torch.Tensor]:
    """Progressive distillation (Salimans & Ho 2022) in one go: each of `steps` jumps learns where `substeps` guided
    steps of the teacher arrive. Half the starts are noised data, half the student's own path from pure noise.

    With a critic, the student goes on from there to its last step, and what it arrives at must pass for data."""

    def level(position: float, rows: int = batch) -> Level:
        """Returns the noise level at a (fractional) step of `steps`, for each row: pure noise at 0, data at `steps`."""
        return path.at(torch.full((rows,), 1.0 - position / steps, device=student.denoiser.device))

    @torch.no_grad()
    def own_path(
        noise: torch.Tensor, jump: int, text: tuple[torch.Tensor, ...], reference: torch.Tensor | None
    ) -> torch.Tensor:
        x = noise
        for i in range(jump):
            at, below = level(i, len(x)), level(i + 1, len(x))
            x = at.step(x, student.predict(x, at.timestep, text, reference), below)
        return x

    @torch.no_grad()
    def target(noisy: torch.Tensor, jump: int, drawn: Batch) -> torch.Tensor:
        text = teacher.encode(drawn.captions + [""] * batch)
        reference = None if drawn.reference is None else torch.cat([drawn.reference, drawn.reference])
        x, at = noisy, level(jump)
        for i in range(substeps):
            timestep = torch.cat([at.timestep, at.timestep])
            with_caption, without = teacher.predict(torch.cat([x, x]), timestep, text, reference).chunk(2)
            below = level(jump + (i + 1) / substeps)
            x = at.step(x, torch.lerp(without, with_caption, guidance_scale), below)
            at = below
        return level(jump).jump(noisy, x, at)

    def value(generator: torch.Generator) -> torch.Tensor:
        drawn = data.draw(batch, generator)
        noise = torch.randn(drawn.clean.shape, generator=generator).to(drawn.clean.device)
        jump = int(torch.randint(steps, (), generator=generator))
        text = student.encode(drawn.captions, generator)

        def predict(x: torch.Tensor, at: Level) -> torch.Tensor:
            return student.predict(x, at.timestep, text, drawn.reference)

        half = batch // 2
        half_reference = None if drawn.reference is None else drawn.reference[:half]
        own = own_path(noise[:half], jump, tuple(states[:half] for states in text), half_reference)
        x = torch.cat([own, level(jump).noisy(drawn.clean, noise)[half:]])
        predicted = predict(x, level(jump))
        loss = F.mse_loss(predicted, target(x, jump, drawn))
        if critic is None:
            return loss
        x = level(jump).step(x, predicted, level(jump + 1))
        for i in range(jump + 1, steps):
            x = level(i).step(x, predict(x, level(i)), level(i + 1))
        seen = path.at(torch.rand(batch, generator=generator).square().to(x.device))
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        real, generated = (student.grid(seen.noisy(rows, noise), drawn.reference) for rows in (drawn.clean, x))
        found = adversarial_loss(critic, real, generated, seen.s, text[0], generator)
        return loss + adversarial_weight * found.student + found.critic

    return value
