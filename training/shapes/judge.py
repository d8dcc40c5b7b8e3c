"""Reads size, colour, shape and background back from the pixels, and says whether a picture is clean.

Nothing is learnt: the background is the median of the border, the object is what differs from it, and its shape is
the one of the three, drawn in the object's own box, that overlaps it best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from training.shapes.world import (
    BACKGROUND_RGB,
    BACKGROUNDS,
    COLOR_RGB,
    COLORS,
    RADIUS_PX,
    SHAPES,
    SIZES,
    Caption,
    signed_distances,
)

#: Largest distance (sRGB, Euclidean) at which a colour still bears a name: under half the distance of the closest two.
COLOR_TOLERANCE = 0.155
#: A clean object covers this share of the union with the ideal shape drawn in its box.
SHAPE_IOU = 0.85
#: A clean background has at most this share of its pixels off its colour (a small second object is more), and
BACKGROUND_STRAY = 0.01
#: a clean object this share, edges left out.
OBJECT_STRAY = 0.03
#: A pixel belongs to the object when it is further than this from the background.
OBJECT_DISTANCE = 0.25


@dataclass(frozen=True)
class Reading:
    """What stands in one picture. Attributes are None where no name fits."""

    size: str | None
    color: str | None
    shape: str | None
    background: str | None
    clean: bool
    #: The object's middle, x and y in pixels; None where there is none.
    place: tuple[float, float] | None = None
    #: Of a clip.
    motion: str | None = None

    def shows(self, caption: Caption) -> bool:
        """True when every attribute the caption names is seen."""
        pairs = (
            (caption.size, self.size),
            (caption.color, self.color),
            (caption.shape, self.shape),
            (caption.background, self.background),
            (caption.motion, self.motion),
        )
        return all(named is None or named == seen for named, seen in pairs)


def read(pictures: NDArray[np.uint8]) -> Iterator[Reading]:
    """Yields one Reading per image. pictures: (B, H, W, 3), 8-bit sRGB."""
    for picture in pictures:
        yield _read_one(picture.astype(np.float32) / 255.0)


def _nearest(rgb: NDArray[np.float32], names: tuple[str, ...], palette: torch.Tensor) -> str | None:
    distance = np.linalg.norm(palette.numpy() - rgb, axis=1)
    best = int(distance.argmin())
    return names[best] if distance[best] <= COLOR_TOLERANCE else None


def find_object(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the color of the background and the mask (H, W) of the object, which is empty if there is none.

    image: (H, W, 3), sRGB in [0, 1].
    """
    border = np.concatenate([part.reshape(-1, 3) for part in (image[:2], image[-2:], image[:, :2], image[:, -2:])])
    background_rgb = np.median(border, axis=0)
    mask = np.linalg.norm(image - background_rgb, axis=2) > OBJECT_DISTANCE
    labels, count = ndimage.label(mask)
    if count == 0:
        return background_rgb, mask
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return background_rgb, labels == int(np.argmax(areas)) + 1


def _read_one(picture: NDArray[np.float32]) -> Reading:
    width = picture.shape[1]
    background_rgb, one = find_object(picture)
    background = _nearest(background_rgb, BACKGROUNDS, BACKGROUND_RGB)
    nothing = Reading(None, None, None, background, clean=False)
    if not one.any():
        return nothing
    rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
    box_h, box_w = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    radius = (box_h + box_w) / 4
    if radius < 3:
        return nothing

    core = ndimage.binary_erosion(one, iterations=2)
    core = core if core.any() else one
    color_rgb = np.median(picture[core], axis=0)
    color = _nearest(color_rgb, COLORS, COLOR_RGB)

    overlaps = _overlaps(one, rows, columns)
    best = int(np.argmax(overlaps))

    middle = float(RADIUS_PX[0, 1] + RADIUS_PX[1, 0]) / 2 * (width / 64)
    far = ~ndimage.binary_dilation(one, iterations=2)
    off_background = (np.linalg.norm(picture - background_rgb, axis=2) > 0.15)[far].mean() if far.any() else 1.0
    off_object = (np.linalg.norm(picture - color_rgb, axis=2) > 0.20)[core].mean()
    clean = (
        background is not None
        and color is not None
        and overlaps[best] >= SHAPE_IOU
        and off_background <= BACKGROUND_STRAY
        and off_object <= OBJECT_STRAY
    )
    return Reading(
        SIZES[int(radius > middle)],
        color,
        SHAPES[best] if overlaps[best] >= 0.7 else None,
        background,
        bool(clean),
        place=((columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2),
    )


def _overlaps(one: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> list[float]:
    """Returns the best intersection over union with each shape, drawn in the object's box or up to two pixels larger: a
    blurred tip leaves the box smaller than the shape is.
    """
    height, width = one.shape
    y, x = np.mgrid[:height, :width] + 0.5
    radius = (rows[-1] - rows[0] + columns[-1] - columns[0] + 2) / 4
    dx = torch.from_numpy(x - (columns[0] + columns[-1] + 1) / 2)
    best = [0.0] * len(SHAPES)
    for grown in (0.0, 0.5, 1.0):
        # The base of a triangle is sharp and its tip is not, so the box grows upwards.
        dy = torch.from_numpy(y - (rows[0] + rows[-1] + 1) / 2 + grown)
        distances = signed_distances(dx, dy, torch.tensor(radius + grown))
        best = [max(b, _iou(one, (d <= 0).numpy())) for b, d in zip(best, distances, strict=True)]
    return best


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())
