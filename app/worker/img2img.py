"""Edits: the images that a request starts from, and what they change in its pipeline call."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from app.jobs import Generation
from app.worker.pipelines import signature_of

__all__ = ["Edit", "strength_of"]

Pixels = np.ndarray[Any, np.dtype[np.float32]]


class Edit:
    """The images that one edit starts from. `files` has them by artifact name."""

    def __init__(self, request: Generation, files: Mapping[str, bytes]) -> None:
        assert request.edit is not None
        self._request = request
        self._image = _opened(files[request.edit.image], "RGB")
        self._mask = None if request.edit.mask is None else _opened(files[request.edit.mask], "L")

    def arguments(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call, from those of a generation: a pipeline without a size takes that of its image."""
        takes = signature_of(type(pipe), "__call__").parameters
        sized = {name: value for name, value in arguments.items() if name in takes or name not in ("width", "height")}
        masks = {} if self._mask is None else {"mask_image": [self._mask]}
        strength = strength_of(self._request.steps, self._request.num_inference_steps)
        return {**sized, "image": [self._image], "strength": strength, **masks}

    def blend(self, pixels: Pixels) -> Pixels:
        """Blends the source image back in by its mask: an autoencoder gives nothing back exactly."""
        if self._mask is None:
            return pixels
        share = _values(self._mask)[..., None]
        # In two terms, so that a share of 0 and of 1 gives one of them to the bit.
        blended: Pixels = _values(self._image) * (1 - share) + pixels * share
        return blended


def strength_of(part: int, whole: int) -> float:
    """The strength of an edit that runs `part` of `whole` steps.

    Pipelines multiply it by `whole` and round, some up and some down, so the product should be `part` exactly. Where no
    float has that product, it is a little above, and a pipeline that rounds up runs one step more.
    """
    near = part / whole
    floats = (near, math.nextafter(near, 0), math.nextafter(near, 2))
    return next((strength for strength in floats if whole * strength == part), max(floats))


def _values(image: Image.Image) -> Pixels:
    """Returns values of 0 to 1."""
    values: Pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    return values


def _opened(data: bytes, mode: str) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert(mode)
