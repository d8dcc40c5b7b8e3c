"""Model families, one file each. A pipeline's family is found by the class of its denoiser."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from nag.errors import UnsupportedPipeline
from nag.families.family import DENOISER_NAMES, Family, denoisers_of
from nag.processor_swap import original

__all__ = ["Family", "family_of", "family_of_denoiser", "register_family", "registered_families"]

_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Adds a family of models, which `nag.guide` and `nag.attach` then know.

    Raises:
        ValueError: a family of this name is registered already.

    """
    if family.name in _FAMILIES:
        raise ValueError(f"a family named {family.name!r} is registered already")
    _FAMILIES[family.name] = family


def registered_families() -> tuple[Family, ...]:
    """Returns every family, in alphabetical order."""
    return tuple(sorted(_FAMILIES.values(), key=lambda family: family.name.lower()))


def family_of_denoiser(denoiser: Any) -> Family:
    """Returns the family of a denoiser: of those that fit, the one that names its most derived class.

    Raises:
        UnsupportedPipeline: no family fits, or several do.

    """
    kind = type(original(denoiser))
    nearest = [family for family in _nearest(kind, tuple(_FAMILIES.values())) if family.fits(denoiser)]  # type: ignore[arg-type]
    if len(nearest) == 1:
        return nearest[0]
    name = kind.__name__
    if nearest:
        raise UnsupportedPipeline(f"{name} fits several families: {' and '.join(family.name for family in nearest)}")
    known = ", ".join(family.name for family in registered_families())
    raise UnsupportedPipeline(f"{name} belongs to no known family; there are {known}")


@functools.lru_cache(maxsize=256)
def _nearest(kind: type, families: tuple[Family, ...]) -> tuple[Family, ...]:
    """Returns the families that name the most derived class among the bases of `kind`."""
    by_distance: dict[int, list[Family]] = {}
    for family in families:
        distance = family.class_distance(kind)
        if distance is not None:
            by_distance.setdefault(distance, []).append(family)
    return tuple(by_distance[min(by_distance)]) if by_distance else ()


def family_of(pipe: Any) -> Family:
    """Returns the family of a pipeline, found by its denoiser.

    Raises:
        UnsupportedPipeline: it has no denoiser, or one that no family or several families fit.

    """
    denoisers = denoisers_of(pipe)
    if not denoisers:
        raise UnsupportedPipeline(f"{type(pipe).__name__} has no denoiser ({', '.join(DENOISER_NAMES)})")
    return family_of_denoiser(denoisers[0])


def _register_modules() -> None:
    """Registers the families of every module here: the classes with a name of their own."""
    for module in pkgutil.iter_modules(__path__):
        for value in list(vars(importlib.import_module(f"{__name__}.{module.name}")).values()):
            is_family = isinstance(value, type) and issubclass(value, Family) and "name" in vars(value)
            if is_family and value.name not in _FAMILIES:
                register_family(value())


_register_modules()
