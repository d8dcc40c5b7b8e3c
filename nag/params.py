"""The numbers of guidance, given for all prompts or per prompt, and their validation."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from nag.errors import InvalidParameter
from nag.formula import decay_scale

__all__ = ["METHODS", "NAGParams", "params_by_prompt", "resolve_alias"]

Given = float | str | Sequence[float] | Sequence[str] | None

#: The rules of guidance, by the names that `method` takes: NAG, orthogonal negative guidance and value sign flip.
METHODS = ("nag", "orthogonal", "vsf")


@dataclass(frozen=True)
class NAGParams:
    """Guidance of one prompt.

    Attributes:
        scale: s ≥ 1; the paper's φ is s − 1, so guidance is on when s > 1.
        tau: τ ≥ 1, the largest growth of a token's L1 norm (equation 9). Below 1 even the positive output would shrink.
        alpha: α in [0, 1], the share of the guided output (equation 10).
        end: θ in [0, 1]; guidance runs while the timestep t ≥ (1 − θ)·T. 1 is every step, 0 is none.
        scale_decay: in [0, 1], the share of φ that is lost from start to end, in a straight line over t
            (`decay_scale`). 0 is a constant scale, as in the paper; 1 ends in no guidance.
        start: in [0, 1) and below `end` (unless that is 0); guidance runs while t ≤ (1 − start)·T. 0 is from the first
            step on, as in the paper.
        method: "nag", equations 7 to 10; "orthogonal", which subtracts the part of Z− orthogonal to Z+ alone
            (`orthogonalize`); "vsf", value sign flip (`flip_sign`), which reads neither τ nor α.

    Raises:
        InvalidParameter: a value is not a finite number within its range, or no method.

    """

    scale: float
    tau: float
    alpha: float
    end: float = 1.0
    scale_decay: float = 0.0
    start: float = 0.0
    method: str = "nag"

    def __post_init__(self) -> None:
        _check("scale", self.scale, 1.0, math.inf)
        _check("tau", self.tau, 1.0, math.inf)
        _check("alpha", self.alpha, 0.0, 1.0)
        _check("end", self.end, 0.0, 1.0)
        _check("scale_decay", self.scale_decay, 0.0, 1.0)
        _check("start", self.start, 0.0, 1.0)
        if 0 < self.end <= self.start:
            raise InvalidParameter("start", f"must be below end, got {self.start} and end {self.end}")
        if self.method not in METHODS:
            raise InvalidParameter("method", f"must be one of {', '.join(METHODS)}, got {self.method!r}")

    @property
    def anneal(self) -> float:
        """Deprecated name of `scale_decay`."""
        warnings.warn("NAGParams.anneal is deprecated; use scale_decay", DeprecationWarning, stacklevel=2)
        return self.scale_decay

    @property
    def is_active(self) -> bool:
        """Whether these numbers change anything at all."""
        return self.scale > 1 and self.alpha > 0 and self.end > 0

    @property
    def is_constant(self) -> bool:
        """Whether guidance is the same at every timestep."""
        return self.end == 1 and self.scale_decay == 0 and self.start == 0

    def is_active_at(self, timestep: float, timesteps_total: float) -> bool:
        """Whether guidance runs at `timestep`, of a schedule that starts at `timesteps_total`."""
        return self.scale_at(timestep, timesteps_total) > 1

    def scale_at(self, timestep: float, timesteps_total: float) -> float:
        """Returns s at `timestep`, of a schedule that starts at `timesteps_total`; 1 if no guidance runs."""
        is_early = self.start > 0 and timestep > (1.0 - self.start) * timesteps_total
        if not self.is_active or is_early or timestep < (1.0 - self.end) * timesteps_total:
            return 1.0
        passed = (1.0 - self.start - timestep / timesteps_total) / (self.end - self.start)
        return decay_scale(self.scale, self.scale_decay, min(1.0, max(0.0, passed)))


def params_by_prompt(defaults: NAGParams, **given: Given) -> tuple[NAGParams, ...]:
    """Returns one NAGParams for all prompts, or one per prompt if any number is a sequence.

    Raises:
        InvalidParameter: a number out of range, an empty sequence, or sequences of different lengths.

    """
    columns: dict[str, Sequence[Any]] = {}
    for name in (field.name for field in fields(NAGParams)):
        value: Any = given.get(name)
        if value is None:
            value = getattr(defaults, name)
        kind, noun = (str, "name") if name == "method" else (numbers.Real, "number")
        if isinstance(value, kind):
            value = [value if kind is str else float(value)]
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
            raise InvalidParameter(name, f"must be a {noun} or a sequence of {noun}s, one per prompt, got {value!r}")
        columns[name] = value
    count = max(len(column) for column in columns.values())
    for name, column in columns.items():
        if len(column) not in (1, count):
            raise InvalidParameter(name, f"has {len(column)} values where another parameter has {count}")
    return tuple(
        NAGParams(**{name: column[i if len(column) > 1 else 0] for name, column in columns.items()})
        for i in range(count)
    )


def resolve_alias(name: str, value: Given, old_name: str, old_value: Given) -> Given:
    """Returns what `guide` was given under a parameter's name, or under its deprecated one with a warning.

    Raises:
        InvalidParameter: both were given, with different values.

    """
    if old_value is None:
        return value
    # To the caller of the context manager: this function, the guide, contextlib.
    warnings.warn(f"{old_name} is deprecated; use {name}", DeprecationWarning, stacklevel=4)
    if value not in (None, old_value):
        raise InvalidParameter(old_name, f"is a former name of {name}; got {old_value}, and {name} {value}; give one")
    return old_value


def _check(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InvalidParameter(name, f"must be a finite number, got {value!r}")
    if not low <= float(value) <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InvalidParameter(name, f"must be {bounds}, got {value}")
