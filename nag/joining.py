"""One denoiser call made of several, and its output split by call: the basis of continuous batching.

A call is its arguments by name. How each argument joins is stated by the family (`Family.arguments`); calls join if
their keys are equal (`joining_key`). Joining is an optimization: a call that joins no other runs alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nag.errors import CannotJoin, NAGError
from nag.families import Family, family_of_denoiser
from nag.families.arguments import PADDED, UNDECLARED, Argument
from nag.guided_step import RowGuidance
from nag.negative import stacking_key

__all__ = ["JoinedCall", "join", "joining_key"]

Call = Mapping[str, Any]


@dataclass(frozen=True)
class JoinedCall:
    """A denoiser call made of several.

    Attributes:
        arguments: by name; the rows of all calls one after the other.
        rows: the guidance of each row, for `Attachment.rows`.
        counts: rows of each call.

    """

    arguments: dict[str, Any]
    rows: tuple[RowGuidance | None, ...]
    counts: tuple[int, ...]

    def split(self, output: Any) -> list[Any]:
        """Returns each call's part of what the denoiser returned, in the type that it returned: views of tensors.

        Raises:
            NAGError: a tensor's rows are not those of the calls.

        """
        return [output] if len(self.counts) == 1 else _split(output, self.counts)


def join(
    denoiser: Any,
    calls: Sequence[Call],
    rows: Sequence[Sequence[RowGuidance | None]] | None = None,
    *,
    keys: Sequence[Hashable] | None = None,
) -> JoinedCall:
    """Makes one denoiser call of several, which may differ in rows, timesteps, text and guidance.

    A prompt of fewer tokens is padded if the model masks its text. One call alone stays as it is.

    Args:
        denoiser: the denoiser, or its family (`Attachment.family`), which knows nothing of step caches.
        calls: the arguments of each call by name.
        rows: the guidance of each call's rows; all rows are plain without it.
        keys: of the calls, by `joining_key`, if they are known. Equal ones save the check that computes them.

    Raises:
        CannotJoin: a call cannot share a forward with the first; says which call, and which argument keeps them apart.
        UnsupportedPipeline: no family fits the denoiser.

    """
    family = _family(denoiser)
    counts = tuple(family.row_count(call) for call in calls)
    rows = [[None] * count for count in counts] if rows is None else rows
    every_row = tuple(row for of_call in rows for row in of_call)
    if len(calls) == 1:
        return JoinedCall(dict(calls[0]), every_row, counts)
    if keys is None or len(set(keys)) > 1:
        _check_keys(denoiser, calls)
    _check_negatives(family, rows)
    calls = [_drop_absent(call) for call in family.with_masks(calls)]
    joined = {
        name: _join_argument(family, name, UNDECLARED, [call[name] for call in calls], counts) for name in calls[0]
    }
    return JoinedCall(dict(calls[0]) | joined, every_row, counts)


def joining_key(denoiser: Any, call: Call) -> Hashable:
    """Returns what two calls must have in common to share a forward: calls of equal keys join.

    It is made of shapes, dtypes and plain values, so a scheduler can group many waiting calls at every step. Tensors
    that must be equal are read once for as long as they live. The key of a call that joins no other equals no other.
    Negative prompts are no part of it; `join` refuses those that cannot share a call.

    Args:
        denoiser: the denoiser, or its family.
        call: its arguments by name.

    Raises:
        UnsupportedPipeline: no family fits the denoiser.

    """
    return frozenset(_keys_of_call(denoiser, call).items())


def _family(denoiser: Any) -> Family:
    return denoiser if isinstance(denoiser, Family) else family_of_denoiser(denoiser)


def _keys_of_call(denoiser: Any, call: Call) -> dict[str, Hashable]:
    """Returns the key of each given argument but masks: without a mask all tokens count."""
    family = _family(denoiser)
    rows = family.row_count(call)
    keys = {
        name: _key_of_argument(family, name, UNDECLARED, value, rows)
        for name, value in _drop_absent(call).items()
        if name != family.denoiser_mask_arg or family.argument(name, UNDECLARED) is not PADDED
    }
    return keys | ({} if _find_obstacle(denoiser) is None else {"denoiser": object()})


def _key_of_argument(family: Family, name: str, outer: Argument, value: Any, rows: int) -> Hashable:
    kind = family.argument(name, outer)
    if isinstance(value, Mapping):
        parts = _drop_absent(value).items()
        return frozenset((entry, _key_of_argument(family, entry, kind, part, rows)) for entry, part in parts)
    return kind.key(value, rows)


def _join_argument(family: Family, name: str, outer: Argument, values: Sequence[Any], counts: Sequence[int]) -> Any:
    kind = family.argument(name, outer)
    if isinstance(values[0], Mapping):
        entries = _drop_absent(values[0])
        return {
            entry: _join_argument(family, entry, kind, [value[entry] for value in values], counts) for entry in entries
        }
    return kind.join(values, counts)


def _drop_absent(call: Call) -> dict[str, Any]:
    """Returns the arguments without None and empty dicts, by which pipelines leave arguments out."""
    return {
        name: value
        for name, value in call.items()
        if value is not None and not (isinstance(value, Mapping) and not _drop_absent(value))
    }


def _find_obstacle(denoiser: Any) -> str | None:
    """Returns why no calls of this denoiser join, or None."""
    if getattr(denoiser, "is_cache_enabled", False):
        return "has a step cache, which holds state of one request between its steps"
    return _family(denoiser).cannot_join


def _check_keys(denoiser: Any, calls: Sequence[Call]) -> None:
    family, first = _family(denoiser), _keys_of_call(denoiser, calls[0])
    for place, call in enumerate(calls[1:], start=1):
        keys = _keys_of_call(denoiser, call)
        for name in first | keys:
            if first.get(name) != keys.get(name):
                why = _find_obstacle(denoiser) or (
                    f"{family.argument(name, UNDECLARED).rule}, "
                    f"got {_describe(calls[0].get(name))} and {_describe(call.get(name))}"
                )
                raise CannotJoin(name, place, why)


def _check_negatives(family: Family, rows: Sequence[Sequence[RowGuidance | None]]) -> None:
    guided = [
        (place, stacking_key(row.negative, has_mask=family.has_mask))
        for place, of_call in enumerate(rows)
        for row in of_call
        if row is not None and row.is_active
    ]
    for place, key in guided:
        if key != guided[0][1]:
            raise CannotJoin("negative", place, "must have as many tokens and the same inputs, for there is no mask")


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype}".replace("torch.", "")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_describe(part)}' for name, part in value.items())}}}"
    return repr(value) if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def _split(output: Any, counts: Sequence[int]) -> list[Any]:
    total = sum(counts)
    if isinstance(output, torch.Tensor):
        if len(output) % total:
            raise NAGError(f"the denoiser returned {len(output)} rows for {total} rows of {len(counts)} calls")
        unit = len(output) // total
        return list(torch.split(output, [count * unit for count in counts]))
    if isinstance(output, list) and len(output) == total:
        ends = list(itertools.accumulate(counts))
        return [output[end - count : end] for end, count in zip(ends, counts, strict=True)]
    if isinstance(output, Mapping):  # diffusers' outputs are dicts too
        parts = zip(*(_split(part, counts) for part in output.values()), strict=True)
        return [type(output)(**dict(zip(output, part, strict=True))) for part in parts]
    if isinstance(output, (list, tuple)):
        return [type(output)(part) for part in zip(*(_split(part, counts) for part in output), strict=True)]
    return [output] * len(counts)
