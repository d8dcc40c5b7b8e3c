"""Edits by instruction: a scene, an instruction that names one attribute, and the scene that it leads to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from training.shapes.judge import Reading
from training.shapes.world import (
    BACKGROUNDS,
    COLORS,
    RADIUS_PX,
    SHAPES,
    SIZES,
    WORDS,
    Caption,
    Scenes,
)

__all__ = ["INSTRUCTION_WORDS", "Attribute", "Edits", "Instruction"]

Attribute = Literal["size", "color", "shape", "background"]
ATTRIBUTES: Sequence[Attribute] = get_args(Attribute)
VALUES: dict[Attribute, Sequence[str]] = {
    "size": SIZES,
    "color": COLORS,
    "shape": SHAPES,
    "background": BACKGROUNDS,
}
#: The comparative of a size, which is a command to change it.
COMPARATIVES = {"small": "smaller", "large": "larger"}
#: The ways to ask for a value of an attribute, and last a caption of the result.
NAMED: dict[Attribute, Sequence[str]] = {
    "size": ("make it {comparative}", "make it {value}", "change the size to {value}", "a {value} shape"),
    "color": ("make it {value}", "turn it {value}", "change the color to {value}", "a {value} shape"),
    "shape": ("turn it into a {value}", "make it a {value}", "change the shape to a {value}", "a {value}"),
    "background": (
        "put it on a {value} background",
        "make the background {value}",
        "change the background to {value}",
        "a shape on a {value} background",
    ),
}
#: The command to change an attribute to any other value.
FREE = "change the {attribute}"
#: Share of free instructions.
FREE_SHARE = 0.2
#: Every word of an instruction and of a caption.
INSTRUCTION_WORDS = (
    *WORDS,
    "make",
    "turn",
    "put",
    "change",
    "it",
    "the",
    "into",
    "to",
    "color",
    "size",
    "larger",
    "smaller",
)


@dataclass(frozen=True)
class Instruction:
    """A command to change one attribute, to `value` or, if that is None, to any other value than before."""

    attribute: Attribute
    value: str | None = None
    #: The index of its wording in `NAMED`.
    wording: int = 0

    def __str__(self) -> str:
        if self.value is None:
            return FREE.format(attribute=self.attribute)
        template = NAMED[self.attribute][self.wording]
        return template.format(value=self.value, comparative=COMPARATIVES.get(self.value))

    def is_obeyed(self, before: Reading | Caption, after: Reading) -> bool:
        """Tells whether the attribute has the named value, or another value than before."""
        seen = getattr(after, self.attribute)
        if self.value is not None:
            return bool(seen == self.value)
        return seen is not None and seen != getattr(before, self.attribute)

    def is_rest_kept(self, before: Reading | Caption, after: Reading) -> bool:
        """Tells whether every attribute that the instruction does not name is as before."""
        return all(getattr(before, name) == getattr(after, name) for name in ATTRIBUTES if name != self.attribute)


@dataclass(frozen=True)
class Edits:
    """A batch: the scenes before and after; `attribute` (B,) is the index of what changes in `ATTRIBUTES`."""

    before: Scenes
    after: Scenes
    attribute: torch.Tensor

    @classmethod
    def sample(cls, batch: int, generator: torch.Generator) -> Edits:
        before = Scenes.sample(batch, generator)
        attribute = torch.randint(len(ATTRIBUTES), (batch,), generator=generator)
        counts = torch.tensor([len(VALUES[name]) for name in ATTRIBUTES])[attribute]
        offset = 1 + (torch.rand(batch, generator=generator) * (counts - 1)).long()
        attributes, row = before.attributes.clone(), torch.arange(batch)
        attributes[row, attribute] = (attributes[row, attribute] + offset) % counts
        return cls(before, Scenes(attributes, _resized(before, attributes[:, 0])), attribute)

    def take(self, rows: torch.Tensor | slice) -> Edits:
        return replace(self, before=self.before.take(rows), after=self.after.take(rows), attribute=self.attribute[rows])

    def captions(self, generator: torch.Generator) -> list[Instruction]:
        """Draws an instruction per edit: its value is named in one of the wordings, or left free."""
        count = len(self.attribute)
        free = torch.rand(count, generator=generator) < FREE_SHARE
        wordings = torch.randint(min(map(len, NAMED.values())), (count,), generator=generator)
        return [
            Instruction(name) if is_free else Instruction(name, VALUES[name][scene[index]], wording)
            for name, index, scene, is_free, wording in zip(
                (ATTRIBUTES[index] for index in self.attribute.tolist()),
                self.attribute.tolist(),
                self.after.attributes.tolist(),
                free.tolist(),
                wordings.tolist(),
                strict=True,
            )
        ]

    def render(self) -> torch.Tensor:
        """Draws the images after the edit (B, 3, H, W), in [-1, 1]."""
        return self.after.render()

    def references(self) -> torch.Tensor:
        """Draws the images before the edit (B, 3, H, W), in [-1, 1]."""
        return self.before.render()


def _resized(scenes: Scenes, size: torch.Tensor) -> torch.Tensor:
    """Returns the places (B, 3) with radii of these sizes, each as far into its range as before."""
    low, high = RADIUS_PX[scenes.attributes[:, 0]].unbind(1)
    share = (scenes.place[:, 2] - low) / (high - low)
    new_low, new_high = RADIUS_PX[size].unbind(1)
    place = scenes.place.clone()
    place[:, 2] = new_low + share * (new_high - new_low)
    return place
