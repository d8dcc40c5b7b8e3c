"""The images of a run in a folder, each a PNG that carries what it was drawn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.catalog import Model
from app.jobs import Generation

__all__ = ["ImageCache", "StaleImageError"]

KEY = "drawn from"
#: Of an entry, what changes its images and is no part of a request.
SOURCE = {
    "repository", "revision", "variant", "pipeline", "dtype", "component_dtypes", "denoiser", "lora", "scheduler",
    "quantization", "cfg", "embedded_guidance", "call",
}  # fmt: skip


class StaleImageError(ValueError):
    """An image of the folder comes from other parameters than are asked for now."""


class ImageCache:
    """`folder`/<method>/<place>.png. An image is there whole or not at all, whenever the run ends."""

    def __init__(self, folder: Path, entry: Model) -> None:
        self.folder = folder
        self._source = entry.model_dump(mode="json", include=SOURCE)

    def path(self, method: str, place: int) -> Path:
        return self.folder / method / f"{place:06d}.png"

    def holds(self, method: str, place: int, generation: Generation) -> bool:
        """Raises StaleImageError, naming what differs."""
        path = self.path(method, place)
        if not path.exists():
            return False
        with Image.open(path) as image:
            found = json.loads(image.info.get(KEY, "{}"))
        wanted = self._parameters(generation)
        if found != wanted:
            raise StaleImageError(f"{path} was drawn from other {_difference(found, wanted)}: take another folder")
        return True

    def keep(self, method: str, place: int, generation: Generation, pixels: NDArray[np.uint8]) -> None:
        path = self.path(method, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        info = PngInfo()
        info.add_itxt(KEY, json.dumps(self._parameters(generation)))
        part = path.with_suffix(".part")
        Image.fromarray(pixels).save(part, format="png", pnginfo=info)
        part.replace(path)

    def _parameters(self, generation: Generation) -> dict[str, Any]:
        parameters: dict[str, Any] = json.loads(json.dumps({**self._source, **asdict(generation)}))
        return parameters


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names only: a prompt is nobody's business in a message."""
    return ", ".join(name for name in wanted if found.get(name) != wanted[name]) or "parameters"
