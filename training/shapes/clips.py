"""The shapes world in motion: a scene whose object crosses part of the picture, or stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from training.shapes.world import MOTIONS, Caption, Scenes

__all__ = ["FRAMES", "TRAVEL_PX", "Clips", "Continuations"]

FRAMES = 17
#: How far a moving object comes from the first frame to the last, of a 64-pixel picture; the largest stays inside.
TRAVEL_PX = 16.0
#: Right and down are positive, in the order of MOTIONS.
DIRECTIONS = torch.tensor([(0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])


@dataclass(frozen=True)
class Clips:
    """A batch: scenes, in the place they have midway, and motion (B,), an index into MOTIONS."""

    scenes: Scenes
    motion: torch.Tensor

    @classmethod
    def sample(cls, batch: int, generator: torch.Generator) -> Self:
        return cls(Scenes.sample(batch, generator), torch.randint(len(MOTIONS), (batch,), generator=generator))

    def take(self, rows: torch.Tensor | slice) -> Self:
        return type(self)(self.scenes.take(rows), self.motion[rows])

    def captions(self, generator: torch.Generator, drop: float = 0.5) -> list[Caption]:
        """Returns a caption per clip; each attribute is left out with probability `drop`."""
        named = torch.rand(len(self.motion), generator=generator) >= drop
        return [
            Caption(each.size, each.color, each.shape, each.background, MOTIONS[motion] if name else None)
            for each, motion, name in zip(
                self.scenes.captions(generator, drop), self.motion.tolist(), named.tolist(), strict=True
            )
        ]

    def render(self) -> torch.Tensor:
        """Clips (B, 3, FRAMES, H, W) in [-1, 1]."""
        return torch.stack([self.frame(i) for i in range(FRAMES)], dim=2)

    def frame(self, index: int) -> torch.Tensor:
        """Draws one frame of each clip (B, 3, H, W), in [-1, 1]."""
        place = self.scenes.place.clone()
        place[:, :2] += (index / (FRAMES - 1) - 0.5) * TRAVEL_PX * DIRECTIONS[self.motion]
        return Scenes(self.scenes.attributes, place).render()

    def references(self) -> torch.Tensor | None:
        """Returns None: a caption of a clip comes alone."""
        return None


class Continuations(Clips):
    """Clips whose first frame is given."""

    def references(self) -> torch.Tensor:
        """Draws the first frames (B, 3, H, W), in [-1, 1]."""
        return self.frame(0)
