"""The numbers of a catalog entry: each has a default and a range that a request may set it to."""

from __future__ import annotations

import math
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import model_validator

from app.catalog.table import CatalogTable
from app.jobs import with_present_names

__all__ = ["NAG_BOUNDS", "Method", "NAGDefaults", "Range"]

#: What each number of the guidance may be, both ends included; the same for every model and every request.
NAG_BOUNDS: dict[str, tuple[float, float]] = {
    "scale": (1.0, 100.0),
    "tau": (1.0, 100.0),
    "alpha": (0.0, 1.0),
    "end": (0.0, 1.0),
    "scale_decay": (0.0, 1.0),
    "start": (0.0, 1.0),  # and below the end
}

#: The rules of guidance (nag.NAGParams.method): NAG, orthogonal negative guidance, value sign flip.
Method = Literal["nag", "orthogonal", "vsf"]

Number = TypeVar("Number", int, float)


class Range(CatalogTable, Generic[Number]):
    """A number's default and what a request may set it to, both ends included."""

    default: Number
    min: Number
    max: Number
    multiple: Number | None = None
    offset: Number | None = None  # added to the multiple: a grid of 5, 9, 13, … is 4 and 1

    @property
    def is_fixed(self) -> bool:
        """Whether a request has no choice."""
        return self.min == self.max

    def holds(self, value: Number) -> bool:
        """False for a value out of range, off the grid, or NaN."""
        return self.min <= value <= self.max and (
            self.multiple is None or (value - (self.offset or 0)) % self.multiple == 0
        )

    def nearest(self, wanted: float) -> Number:
        """Returns the number on the grid and in range that is nearest, the larger of two; without a multiple the grid
        is 1.
        """
        step, offset = self.multiple or 1, self.offset or 0
        low, high = -(-(self.min - offset) // step), (self.max - offset) // step
        return type(self.default)(min(max(math.floor((wanted - offset) / step + 0.5), low), high) * step + offset)

    def __str__(self) -> str:
        grid = "" if self.multiple is None else f", a multiple of {self.multiple:g}"
        return f"{self.min:g} to {self.max:g}{grid}{f' plus {self.offset:g}' if self.offset else ''}"

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.multiple is not None and self.multiple <= 0:
            raise ValueError(f"multiple must be above 0, not {self.multiple:g}")
        if self.multiple is None and self.offset is not None:
            raise ValueError("offset needs a multiple to be added to")
        if not self.holds(self.default):
            raise ValueError(f"default {self.default:g} is not within {self}")
        return self


class NAGDefaults(CatalogTable):
    """The guidance a request gets that names no numbers of its own."""

    scale: float
    tau: float
    alpha: float
    end: float
    scale_decay: float = 0.0
    start: float = 0.0
    method: Method = "nag"

    @model_validator(mode="before")
    @classmethod
    def _with_present_names(cls, data: Any) -> Any:
        return with_present_names(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for name, (low, high) in NAG_BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low:g} to {high:g}, not {getattr(self, name)}")
        if 0 < self.end <= self.start:
            raise ValueError(f"start must be below end, got {self.start:g} and end {self.end:g}")
        return self
