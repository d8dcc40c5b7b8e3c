"""What of an image each network is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

__all__ = ["INCEPTION_PX", "bytes_of", "centre", "clip_input", "whole"]

INCEPTION_PX = 299
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def centre(image: Image.Image, side_px: int) -> Image.Image:
    """Returns the square of so many pixels in the middle. Raises ValueError for an image smaller than that."""
    width, height = image.size
    if min(width, height) < side_px:
        raise ValueError(f"a patch of {side_px} px does not fit into {width}x{height}")
    left, top = (width - side_px) // 2, (height - side_px) // 2
    return image.crop((left, top, left + side_px, top + side_px))


def whole(image: Image.Image) -> Image.Image:
    """Returns the largest square in the middle, at Inception's own size, resampled with antialiasing."""
    return centre(image, min(image.size)).resize((INCEPTION_PX, INCEPTION_PX), Image.Resampling.BICUBIC)


def bytes_of(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of one size as (N, 3, H, W), uint8."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def clip_input(images: Sequence[Image.Image], side_px: int) -> torch.Tensor:
    """(N, 3, side_px, side_px), float32: the shorter side scaled, the middle taken, CLIP's mean and spread."""
    pixels = bytes_of([centre(_scaled(image, side_px), side_px) for image in images]).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def _scaled(image: Image.Image, shorter_px: int) -> Image.Image:
    width, height = image.size
    size = tuple(shorter_px * side // min(width, height) for side in (width, height))
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
