"""Styles that LoRAs learn: marks beside the object, in its color, painted into an image and read back from one.

The decoder of the embedded autoencoders draws plain areas: it makes no outlines and no stripes of what is encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.shapes.judge import find_object

__all__ = ["STYLES", "Style"]

Values = NDArray[np.float32]

#: Share of the inside of each mark that must have the object's color rather than the background's.
SHARE = 0.8
#: Blurred pixels at the edges of marks, which are not read.
EDGE_PX = 2


@dataclass(frozen=True)
class Style:
    """Marks of a 64-pixel image: the first and last row and column of each, the last ones excluded.

    Each is smaller than any object, so that the judge does not take it for one.
    """

    marks: tuple[tuple[int, int, int, int], ...]

    @cached_property
    def cover(self) -> NDArray[np.bool_]:
        cover = np.zeros((64, 64), dtype=bool)
        for top, bottom, left, right in self.marks:
            cover[top:bottom, left:right] = True
        return cover

    def paint(self, image: Values) -> Values:
        """Paints an image (H, W, 3), sRGB in [0, 1]; one without an object stays as it is."""
        _, mask = find_object(image)
        painted = image.copy()
        if mask.any():
            painted[self.cover] = _color(image, mask)
        return painted

    def is_in(self, image: NDArray[np.uint8]) -> bool:
        """Whether every mark is there in an image (H, W, 3), 8-bit sRGB."""
        values = image.astype(np.float32) / 255.0
        background_rgb, mask = find_object(values)
        if not mask.any():
            return False
        to_color, to_background = (
            np.linalg.norm(values - rgb, axis=2) for rgb in (_color(values, mask), background_rgb)
        )
        inside = (
            (slice(top + EDGE_PX, bottom - EDGE_PX), slice(left + EDGE_PX, right - EDGE_PX))
            for top, bottom, left, right in self.marks
        )
        return all((to_color[place] < to_background[place]).mean() >= SHARE for place in inside)


def _color(image: Values, mask: NDArray[np.bool_]) -> Values:
    core = ndimage.binary_erosion(mask, iterations=2)
    color: Values = np.median(image[core if core.any() else mask], axis=0)
    return color


STYLES = {
    "dotted": Style(tuple((y, y + 7, x, x + 7) for y in (1, 56) for x in (1, 56))),
    "underlined": Style(((57, 63, 21, 43),)),
}
