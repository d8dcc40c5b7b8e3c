"""FID and PFID: how far the features of two sets of images lie apart, as two Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from benchmarks.paper_table.metrics.views import bytes_of

__all__ = ["Frechet"]


class Frechet:
    """One reference set and, one after the other, sets held against it. The features are the Inception's alone."""

    def __init__(self, inception: nn.Module, device: torch.device) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance  # slow to import

        self._device = device
        self._metric: Any = FrechetInceptionDistance(feature=inception, reset_real_features=False).to(device)

    def add_reference(self, images: Sequence[Image.Image]) -> None:
        """Images of one size."""
        self._metric.update(bytes_of(images).to(self._device), real=True)

    def add(self, images: Sequence[Image.Image]) -> None:
        self._metric.update(bytes_of(images).to(self._device), real=False)

    def take(self) -> float:
        """Returns the distance of what was added, which is forgotten."""
        distance = float(self._metric.compute())
        self._metric.reset()
        return distance
