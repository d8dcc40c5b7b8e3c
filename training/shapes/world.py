"""The shapes world: one object on a plain background, drawn from attributes a caption may or may not name.

A scene is a row of an integer tensor (size, colour, shape, background) plus three floats (centre x, centre y, radius),
so that a batch is drawn by one vectorised pass. The judge beside this file reads the same attributes back from pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch

SIZES = ("small", "large")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle")
BACKGROUNDS = ("white", "black", "gray")
#: Of a clip; a picture has none.
MOTIONS = ("still", "left", "right", "up", "down")

#: sRGB in [0, 1]; far enough apart for the judge to tell a wrong colour from a blurred one.
COLOR_RGB = torch.tensor(
    [
        (0.86, 0.12, 0.12),
        (0.12, 0.65, 0.25),
        (0.13, 0.30, 0.88),
        (0.96, 0.84, 0.12),
        (0.55, 0.18, 0.70),
        (0.98, 0.53, 0.08),
    ]
)
BACKGROUND_RGB = torch.tensor([(0.98, 0.98, 0.98), (0.04, 0.04, 0.04), (0.52, 0.52, 0.52)])

#: Radius range in pixels of a 64-pixel picture: half the side of the square that encloses the object.
RADIUS_PX = torch.tensor([(8.5, 10.0), (17.0, 19.0)])
#: How far the object's centre may lie from the picture's, each way.
OFFSET_PX = 3.0

#: Every word of a caption of an image, and of a clip, which can name a motion, too.
WORDS = ("a", "on", "background", "shape", *SIZES, *COLORS, *SHAPES, *BACKGROUNDS)
CLIP_WORDS = (*WORDS, "moving", "standing", *MOTIONS)


@dataclass(frozen=True)
class Caption:
    """What a caption names; `None` leaves an attribute free."""

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    background: str | None = None
    motion: str | None = None

    def __str__(self) -> str:
        words = ["a", self.size, self.color, self.shape or "shape"]
        if self.background is not None:
            words += ["on a", self.background, "background"]
        if self.motion is not None:
            words += ["standing" if self.motion == "still" else "moving", self.motion]
        return " ".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> Caption:
        """Reads a caption back. Raises ValueError on a word outside the world or an attribute named twice."""
        found: dict[str, str] = {}
        groups = {"size": SIZES, "color": COLORS, "shape": SHAPES, "background": BACKGROUNDS, "motion": MOTIONS}
        for word in text.lower().split():
            if word not in CLIP_WORDS:
                raise ValueError(f"{word!r} is not a word of the shapes world: {', '.join(CLIP_WORDS)}")
            for name, group in groups.items():
                if word in group:
                    if name in found:
                        raise ValueError(f"{text!r} names {name} twice")
                    found[name] = word
        return cls(**found)


class World(Protocol):
    """A batch of what a model learns to show."""

    @classmethod
    def sample(cls, batch: int, generator: torch.Generator) -> Self:
        """Drawn evenly."""

    def take(self, rows: torch.Tensor | slice) -> Self:
        """Some of them."""

    def captions(self, generator: torch.Generator) -> Sequence[object]:
        """Draws one caption per row, whose `str` is the prompt. A caption leaves some attributes out."""

    def render(self) -> torch.Tensor:
        """Draws the pixels (B, 3, …), in [-1, 1]."""

    def references(self) -> torch.Tensor | None:
        """Draws the images (B, 3, H, W), in [-1, 1], that are given beside the captions; None if there are none."""


@dataclass(frozen=True)
class Scenes:
    """A batch: attributes (B, 4) long, columns size, color, shape, background; place (B, 3): x, y, radius in pixels."""

    attributes: torch.Tensor
    place: torch.Tensor

    @classmethod
    def sample(cls, batch: int, generator: torch.Generator, resolution_px: int = 64) -> Scenes:
        sizes = [len(group) for group in (SIZES, COLORS, SHAPES, BACKGROUNDS)]
        attributes = torch.stack([torch.randint(n, (batch,), generator=generator) for n in sizes], dim=1)
        low, high = RADIUS_PX[attributes[:, 0]].unbind(1)
        radius = low + (high - low) * torch.rand(batch, generator=generator)
        centre = 32.0 + OFFSET_PX * (2 * torch.rand(batch, 2, generator=generator) - 1)
        return cls(attributes, torch.cat([centre, radius[:, None]], dim=1) * (resolution_px / 64))

    def take(self, rows: torch.Tensor | slice) -> Scenes:
        return Scenes(self.attributes[rows], self.place[rows])

    def captions(self, generator: torch.Generator, drop: float = 0.5) -> list[Caption]:
        """Returns a caption per scene; each attribute is left out with probability `drop`."""
        keep = torch.rand(self.attributes.shape, generator=generator) >= drop
        groups = (SIZES, COLORS, SHAPES, BACKGROUNDS)
        return [
            Caption(*(group[i] if k else None for group, i, k in zip(groups, row, kept, strict=True)))
            for row, kept in zip(self.attributes.tolist(), keep.tolist(), strict=True)
        ]

    def render(self, resolution_px: int = 64) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], edges anti-aliased over one pixel."""
        x, y, radius = (column[:, None, None] for column in self.place.unbind(1))
        grid = torch.arange(resolution_px) + 0.5
        dx, dy = grid[None, None, :] - x, grid[None, :, None] - y
        distance = torch.stack(signed_distances(dx, dy, radius), dim=1)  # (B, 3, H, W)
        inside = distance.take_along_dim(self.attributes[:, 2].view(-1, 1, 1, 1), dim=1)
        cover = (0.5 - inside).clamp(0, 1)
        color = COLOR_RGB[self.attributes[:, 1]][:, :, None, None]
        background = BACKGROUND_RGB[self.attributes[:, 3]][:, :, None, None]
        return (background + cover * (color - background)) * 2 - 1

    def references(self) -> None:
        """Returns None: a caption of a scene comes alone."""


def signed_distances(
    dx: torch.Tensor, dy: torch.Tensor, radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels to the edge, negative inside, of a circle, a square and a triangle in one enclosing square."""
    circle = (dx.square() + dy.square()).sqrt() - radius
    square = torch.maximum(dx.abs(), dy.abs()) - radius
    # Apex at the top middle, base along the bottom: the slanted sides have normal (2, -1)/√5.
    slanted = (2 * dx.abs() - dy - radius) / 5**0.5
    triangle = torch.maximum(slanted, dy - radius)
    return circle, square, triangle
