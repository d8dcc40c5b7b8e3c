"""Which cases of a test `make test` runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["one_of_each", "slow_but"]


def slow_but(quick: Collection[str], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases as pytest's parameters, marked as slow unless they are named in `quick`.

    Raises ValueError for a name of `quick` that no case has.
    """
    named = {str(case): case for case in cases}
    if unknown := set(quick) - named.keys():
        raise ValueError(f"no such cases: {', '.join(sorted(unknown))}; there are {', '.join(named)}")
    return [pytest.param(case, marks=() if name in quick else pytest.mark.slow) for name, case in named.items()]


def one_of_each(count: int, cases: Iterable[Any]) -> list[Any]:
    """Returns the cases as pytest's parameters: the first of each `count` of them is quick, the others are slow."""
    return [pytest.param(case, marks=pytest.mark.slow if place % count else ()) for place, case in enumerate(cases)]
