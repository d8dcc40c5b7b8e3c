"""The size of an image that a model makes, for one of other proportions or of another area."""

from __future__ import annotations

import math

from app.catalog import Model, Range

__all__ = ["fitting_size", "nearest_size"]

#: Two ratios of width to height whose logarithms differ by no more look the same: then the area decides.
SAME_PROPORTIONS = 0.02


def nearest_size(width: int, height: int, model: Model) -> tuple[int, int]:
    """Returns the size that the model makes whose proportions, and then whose area, are nearest to these."""
    ratio, area = math.log(width / height), math.log(width * height)
    sizes = {
        size
        for base in (model.width, model.height)
        for value in _grid(base)
        for size in _beside(value, width / height, model, is_width=base is model.width)
    }

    def error(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] / size[1]) - ratio)

    least = min(map(error, sizes))
    alike = [size for size in sizes if error(size) <= least + SAME_PROPORTIONS]
    return min(alike, key=lambda size: (abs(math.log(size[0] * size[1]) - area), error(size), size))


def fitting_size(width: int, height: int, model: Model) -> tuple[int, int]:
    """Returns width and height in pixels: these proportions, the area of the model's default, on its grid."""
    scale = (model.width.default * model.height.default / (width * height)) ** 0.5
    return model.width.nearest(width * scale), model.height.nearest(height * scale)


def _grid(allowed: Range[int]) -> list[int]:
    step = allowed.multiple or 1
    first = allowed.nearest(allowed.min)
    return list(range(first, allowed.max + 1, step))


def _beside(value: int, ratio: float, model: Model, *, is_width: bool) -> list[tuple[int, int]]:
    """Returns the sizes of this width, or height, whose other side makes about this ratio of width to height."""
    other = model.height if is_width else model.width
    nearest = other.nearest(value / ratio if is_width else value * ratio)
    step = other.multiple or 1
    sides = [side for side in (nearest - step, nearest, nearest + step) if other.holds(side)]
    return [(value, side) if is_width else (side, value) for side in sides]
