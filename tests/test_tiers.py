from __future__ import annotations

import pytest

from tests.tiers import slow_but


def test_cases_are_slow_unless_they_are_named() -> None:
    assert [(case.values, [mark.name for mark in case.marks]) for case in slow_but(["a"], ["a", "b"])] == [
        (("a",), []),
        (("b",), ["slow"]),
    ]


def test_a_case_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="no such cases: c; there are a, b"):
        slow_but(["a", "c"], ["a", "b"])
