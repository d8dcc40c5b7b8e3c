"""Model families, one file each, found by what the pipeline's denoiser is; subclasses count."""

from __future__ import annotations

from typing import Any

from nag.errors import UnsupportedPipeline
from nag.families.family import Family
from nag.families.flux import Flux
from nag.families.unet import SDXL, StableDiffusion

__all__ = ["FAMILIES", "Family", "family_of"]

#: Tried in order; the first that matches is taken.
FAMILIES: tuple[Family, ...] = (Flux(), SDXL(), StableDiffusion())


def family_of(pipe: Any) -> Family:
    """The family of a pipeline.

    Raises:
        UnsupportedPipeline: none fits.

    """
    for family in FAMILIES:
        if family.matches(pipe):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise UnsupportedPipeline(f"{type(pipe).__name__} is of no family known here ({known})")
