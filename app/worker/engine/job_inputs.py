"""The files that a job starts from, as arguments of its pipeline call."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from app.jobs import Generation, InputFiles, InputRole
from app.loading.tasks import argument_of, frame_condition
from app.worker.engine.pipelines import signature_of
from app.worker.outputs.video import decode_frames

__all__ = ["JobInputs", "strength_of"]

#: Arguments that not every pipeline takes which starts from files.
OF_FILES = ("width", "height", "num_frames")
FRAMES = (InputRole.FIRST_FRAME, InputRole.LAST_FRAME)
Pixels = np.ndarray[Any, np.dtype[np.float32]]


class JobInputs:
    """The decoded files of one request. `files` has the stored ones by artifact name."""

    def __init__(self, request: Generation, files: InputFiles) -> None:
        self._request = request
        self._images: dict[InputRole, list[Image.Image]] = {}
        for file in request.inputs:
            if file.role is InputRole.VIDEO:
                assert request.num_frames is not None
                size = request.width, request.height
                self._images[file.role] = decode_frames(_open_file(files[file.name]), request.num_frames, size)
                continue
            mode = "L" if file.role is InputRole.MASK else "RGB"
            image = Image.open(_open_file(files[file.name])).convert(mode)
            self._images.setdefault(file.role, []).append(image)

    def arguments(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Adds what the files are for the pipeline to the arguments of a call that starts from text."""
        kind = type(pipe)
        takes = signature_of(kind, "__call__").parameters
        # A pipeline without a size, or without a number of frames, takes those of its files.
        added = {name: value for name, value in arguments.items() if name in takes or name not in OF_FILES}
        for role, images in self._images.items():
            name = argument_of(takes, role)
            assert name is not None, (kind, role)
            if name == "conditions":
                added.setdefault(name, []).append(frame_condition(kind, role, images[0], self._request.num_frames))
            else:
                added[name] = images[0] if role in FRAMES else images
        if "max_area" in takes:  # of Kontext, which scales to sizes of its own else
            added |= {"max_area": self._request.width * self._request.height, "_auto_resize": False}
        if self._request.strength is not None:
            added["strength"] = strength_of(self._request.steps, self._request.num_inference_steps)
        return added

    def blend(self, pixels: Pixels) -> Pixels:
        """Blends the source image back in by its mask: an autoencoder gives nothing back exactly."""
        if InputRole.MASK not in self._images:
            return pixels
        (image,), (mask,) = self._images[InputRole.IMAGE], self._images[InputRole.MASK]
        share = _values(mask)[..., None]
        # In two terms, so that a share of 0 and of 1 gives one of them to the bit.
        blended: Pixels = _values(image) * (1 - share) + pixels * share
        return blended


def strength_of(part: int, whole: int) -> float:
    """Returns the strength of an edit that runs `part` of `whole` steps.

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


def _open_file(file: bytes | BinaryIO) -> BinaryIO:
    return io.BytesIO(file) if isinstance(file, bytes) else file
