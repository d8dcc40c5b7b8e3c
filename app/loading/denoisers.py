"""What the class of a pipeline says of its denoisers, without their weights."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

import nag
from nag.families.family import DENOISER_NAMES

__all__ = ["denoiser_types", "family_of_types", "guided_family"]


def denoiser_types(kind: Any) -> list[type]:
    """Returns the classes that a pipeline's denoisers may have, by the annotations of its constructor."""
    hints = typing.get_type_hints(kind.__init__)
    hinted = [one for name in DENOISER_NAMES for one in (hints.get(name), *typing.get_args(hints.get(name)))]
    return [one for one in dict.fromkeys(hinted) if isinstance(one, type) and one is not type(None)]


def family_of_types(types: Iterable[type]) -> Any:
    """Returns the family of nag that one of the denoiser classes belongs to; None if there is none."""
    names = {base.__name__ for one in types for base in one.__mro__}
    return next((family for family in nag.families() if names & set(family.denoiser_types)), None)


def guided_family(kind: Any) -> Any:
    """Returns the family of nag that a pipeline's denoiser belongs to; None if there is none."""
    return family_of_types(denoiser_types(kind))
