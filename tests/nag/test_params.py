from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from app.catalog import NAG_BOUNDS, Method
from nag import InvalidParameter, NAGError, NAGParams
from nag.params import METHODS, params_by_prompt

DEFAULTS = NAGParams(5.0, 2.5, 0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 0.5),
        ("tau", 0.9),
        ("alpha", 2),
        ("alpha", -0.1),
        ("end", -1),
        ("end", 1.1),
        ("scale_decay", 1.5),
        ("scale", float("nan")),
        ("scale", float("inf")),
        ("tau", True),
        ("alpha", "0.5"),
        ("start", 1.5),
        ("method", "apg"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=name) as caught:
        NAGParams(**({"scale": 5.0, "tau": 2.5, "alpha": 0.25} | {name: value}))
    assert caught.value.name == name
    assert isinstance(caught.value, NAGError)


def test_absent_numbers_come_from_the_defaults() -> None:
    assert params_by_prompt(DEFAULTS, scale=3) == (NAGParams(3.0, 2.5, 0.25),)


def test_sequences_make_one_set_a_prompt() -> None:
    assert params_by_prompt(DEFAULTS, scale=[3, 4], alpha=0.5) == (NAGParams(3, 2.5, 0.5), NAGParams(4, 2.5, 0.5))


@pytest.mark.parametrize("given", [{"scale": [1, 2], "tau": [1, 2, 3]}, {"scale": []}, {"scale": "abc"}])
def test_sequences_that_do_not_fit_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        params_by_prompt(DEFAULTS, **given)


@pytest.mark.parametrize(
    ("end", "timestep", "active"),
    [(1.0, 1000, True), (1.0, 1, True), (0.25, 750, True), (0.25, 749.9, False), (0.0, 1000, False), (0.5, 500, True)],
)
def test_guidance_runs_down_to_one_minus_end_of_the_timestep(end: float, timestep: float, active: bool) -> None:
    assert NAGParams(5.0, 2.5, 0.25, end).is_active_at(timestep, 1000) is active


@pytest.mark.parametrize(
    ("start", "timestep", "active"),
    [(0.0, 1001, True), (0.25, 751, False), (0.25, 750, True), (0.25, 500, True), (0.25, 499, False)],
)
def test_guidance_runs_from_one_minus_start_of_the_timestep(start: float, timestep: int, active: bool) -> None:
    params = NAGParams(5.0, 2.5, 0.25, end=0.5, start=start)
    assert params.is_active_at(timestep, 1000) is active
    assert params.is_constant is False
    assert NAGParams(5.0, 2.5, 0.25, start=start).is_constant is (start == 0)


def test_a_start_that_is_not_before_the_end_is_refused_with_both() -> None:
    for end in (0.5, 0.3):
        with pytest.raises(InvalidParameter, match=f"start: must be below end, got 0.5 and end {end}"):
            NAGParams(5.0, 2.5, 0.25, end=end, start=0.5)
    assert not NAGParams(5.0, 2.5, 0.25, end=0.0, start=0.5).is_active


def test_the_service_names_the_same_methods_and_numbers() -> None:
    assert get_args(Method) == METHODS
    assert {*NAG_BOUNDS, "method"} == {field.name for field in fields(NAGParams)}


def test_methods_may_differ_by_prompt() -> None:
    assert [params.method for params in params_by_prompt(DEFAULTS, method=["vsf", "nag"])] == ["vsf", "nag"]
    assert params_by_prompt(DEFAULTS, method="orthogonal")[0].method == "orthogonal"
    with pytest.raises(InvalidParameter, match="method: must be a name or a sequence of names"):
        params_by_prompt(DEFAULTS, method=3)


@pytest.mark.parametrize(
    ("end", "decay", "timestep", "scale"),
    [
        (1.0, 0.0, 10, 5.0),
        (1.0, 1.0, 1000, 5.0),
        (1.0, 1.0, 500, 3.0),
        (1.0, 0.5, 500, 4.0),
        (0.5, 1.0, 750, 3.0),
        (0.5, 1.0, 500, 1.0),
        (0.5, 0.25, 500, 4.0),
        (0.5, 0.25, 499, 1.0),
    ],
)
def test_a_decaying_scale_falls_in_a_straight_line_to_the_end(
    end: float, decay: float, timestep: int, scale: float
) -> None:
    assert NAGParams(5.0, 2.5, 0.25, end, decay).scale_at(timestep, 1000) == pytest.approx(scale)


@pytest.mark.parametrize(("timestep", "scale"), [(801, 1.0), (800, 5.0), (650, 4.0), (500, 3.0), (499, 1.0)])
def test_a_scale_decays_from_start_to_end(timestep: int, scale: float) -> None:
    params = NAGParams(5.0, 2.5, 0.25, end=0.5, scale_decay=0.5, start=0.2)
    assert params.scale_at(timestep, 1000) == pytest.approx(scale)
