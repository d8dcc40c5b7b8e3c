"""A module that many pipeline calls share, and how their calls of it become one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache

import nag
from app.worker.engine.adapters import Loras, RowAdapters, RowLayout, sort_key
from app.worker.engine.step_cache import StepCacheStates
from nag.guided_step import guided_slice
from nag.negative import stacking_key

if TYPE_CHECKING:
    from app.worker.engine.shared_model import SharedModel

__all__ = [
    "CALL_SIDE_PX",
    "DenoiserCall",
    "ModuleCall",
    "RowwiseModule",
    "SharedAutoencoder",
    "SharedDenoiser",
    "SharedModule",
    "UnsharedModule",
]  # fmt: skip

#: The longer side of the image or video that is made in this context.
CALL_SIDE_PX: ContextVar[int] = ContextVar("call_side_px", default=0)


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A call of a shared module that a suspended pipeline call waits for.

    Attributes:
        module: what is called.
        own_key: what calls that share a forward have in common, negative prompts aside. That of a call which joins no
            other equals no other.
        arguments: by name if the module names them.
        rows: the guidance of each row of a denoiser call, None for a plain one; of another module's, None for each row.
        loras: of the request, those that change the module.
        negative_key: of a guided call, what negative prompts that share a forward have in common.
        cache_context: of a step cache, whose state the call uses.
        is_tiled: whether an autoencoder works in tiles.

    """

    module: SharedModule
    own_key: Hashable
    args: tuple[Any, ...]
    arguments: Mapping[str, Any]
    rows: Sequence[nag.RowGuidance | None]
    loras: Loras = ()
    negative_key: Hashable = None
    cache_context: Any = None
    is_tiled: bool = False

    @property
    def key(self) -> Hashable:
        """Calls of equal keys share a forward.

        A call without guidance joins the latest guided ones, whatever their negative prompts, also if it came first.
        """
        return self.own_key, self.negative_key or self.module.model.negative_key


class SharedModule:
    """A module, or a method of one, with its calls by several pipeline calls.

    Attributes:
        kind: what it does in a pipeline call.
        adapters: the LoRAs that its calls can use.

    """

    kind = "denoiser"

    def __init__(self, model: SharedModel, adapters: RowAdapters) -> None:
        self.model, self.adapters = model, adapters
        self.inner: Callable[..., Any] = _not_entered

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModuleCall:
        """Makes a ModuleCall of the arguments, in the coroutine that makes the call."""
        raise NotImplementedError

    def run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        """Calls the module once for calls of one key; returns each one's part of the output."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class DenoiserCall:
    """One call of a denoiser for the rows of several pipeline calls."""

    arguments: Mapping[str, Any]
    rows: Sequence[nag.RowGuidance | None]
    loras: Sequence[Loras]
    layout: RowLayout


class SharedDenoiser(SharedModule):
    """Joins calls of a family that `nag.join` knows; rows of requests with and without guidance share a forward."""

    def __init__(
        self, model: SharedModel, name: str, adapters: RowAdapters, attachment: nag.Attachment,
        step_cache: StepCacheStates,
    ) -> None:  # fmt: skip
        super().__init__(model, adapters)
        self.name, self.attachment, self.step_cache = name, attachment, step_cache

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModuleCall:
        arguments = self.attachment.bind(args, kwargs)
        rows = self.attachment.planned_rows(arguments)
        family = self.attachment.family
        has_step_cache = getattr(self.attachment.denoiser, "is_cache_enabled", False)
        key = object() if has_step_cache else nag.joining_key(family, arguments)
        negative = next((row.negative for row in rows if row is not None and row.is_active), None)
        negative_key = None if negative is None else stacking_key(negative, has_mask=family.has_mask)
        self.model.negative_key = negative_key or self.model.negative_key
        loras = self.adapters.of_context
        own_key = self, key, self.adapters.key(loras)
        return ModuleCall(self, own_key, (), arguments, rows, loras, negative_key, self.step_cache.context)

    def run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        # Rows without guidance between guided ones ride along as guided ones of scale 1; so they go first. Those of
        # equal LoRAs side by side are computed as one.
        order = sorted(range(len(calls)), key=lambda place: (any(calls[place].rows), sort_key(calls[place].loras)))
        ordered = [calls[place] for place in order]
        if self.model.entry.is_compiled:
            ordered += ordered[-1:] * (_next_size(len(calls)) - len(calls))
        arguments, rows, keys = zip(*((call.arguments, call.rows, call.key) for call in ordered), strict=True)
        joined = nag.join(self.attachment.family, arguments, rows, keys=keys)
        loras = [call.loras for call, count in zip(ordered, joined.counts, strict=True) for _ in range(count)]
        layout = RowLayout(guided_slice(joined.rows), self.attachment.family.frames(joined.arguments))
        call, group = DenoiserCall(joined.arguments, joined.rows, loras, layout), self.model.group
        if group is not None:
            group.send("call", self.model.entry.id, self.name, call)
        in_context = self.step_cache.within(calls[0].cache_context)  # calls of a step cache join no others
        with in_context, nullcontext() if group is None else group.in_step():
            parts = joined.split(self.call(call))
        return [part for _, part in sorted(zip(order, parts, strict=False), key=lambda pair: pair[0])]

    def call(self, call: DenoiserCall) -> Any:
        """Calls the denoiser of this process."""
        with self.attachment.rows(call.rows), self.adapters.rows(call.loras, call.layout):
            return self.inner(**call.arguments)


class RowwiseModule(SharedModule):
    """Joins calls whose tensors all have the rows as their first dimension, and whose other arguments are equal.

    Text encoders run once for calls of equal values: the images of a job have one prompt.
    """

    def __init__(self, model: SharedModel, adapters: RowAdapters, kind: str, *, joins: bool = True) -> None:
        super().__init__(model, adapters)
        self.kind = kind
        self._joins = joins

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModuleCall:
        values = [*args, *kwargs.values()]
        tensors = [value for value in values if isinstance(value, Tensor)]
        counts = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
        count = counts.pop() if len(counts) == 1 else 0
        key: Hashable = object()
        if self._joins and count:
            key = (len(args), tuple(kwargs), tuple(_row_kind(value) for value in values))
        loras = self.adapters.of_context
        return ModuleCall(self, (self, key, loras), args, kwargs, [None] * max(1, count), loras)

    def run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        with self.adapters.rows([calls[0].loras]):
            return self._run(calls)

    def _run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        if len(calls) == 1:
            return [self.inner(*calls[0].args, **calls[0].arguments)]
        contents = [_contents(call) if self.kind == "text" else call for call in calls]
        unique = dict(zip(contents, calls, strict=True))
        places = [list(unique).index(content) for content in contents]
        args = [_joined(column) for column in zip(*(call.args for call in unique.values()), strict=True)]
        kwargs = {name: _joined([call.arguments[name] for call in unique.values()]) for name in calls[0].arguments}
        try:
            return _split(self.inner(*args, **kwargs), [len(call.rows) for call in unique.values()], places)
        except _CannotSplit:  # known from now on
            self._joins = False
            return [part for call in calls for part in self._run([call])]


class SharedAutoencoder(RowwiseModule):
    """Works in tiles for images or videos with a side above a number of pixels."""

    def __init__(self, model: SharedModel, adapters: RowAdapters, kind: str, *, joins: bool, side_px: int) -> None:
        super().__init__(model, adapters, kind, joins=joins)
        self._side_px = side_px

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModuleCall:
        call, is_tiled = super().prepare(args, kwargs), CALL_SIDE_PX.get() > self._side_px
        return replace(call, own_key=(call.own_key, is_tiled), is_tiled=is_tiled)

    def _run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        vae = self.model.pipe.vae
        (vae.enable_tiling if calls[0].is_tiled else vae.disable_tiling)()
        return super()._run(calls)


class UnsharedModule(SharedModule):
    """A denoiser of no family: its calls take turns."""

    def __init__(self, model: SharedModel, adapters: RowAdapters, step_cache: StepCacheStates) -> None:
        super().__init__(model, adapters)
        self.step_cache = step_cache

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModuleCall:
        context = self.step_cache.context
        return ModuleCall(self, object(), args, kwargs, [None], self.adapters.of_context, cache_context=context)

    def run(self, calls: Sequence[ModuleCall]) -> list[Any]:
        outputs = []
        for call in calls:
            with self.adapters.rows([call.loras]), self.step_cache.within(call.cache_context):
                outputs.append(self.inner(*call.args, **call.arguments))
        return outputs


def _not_entered(*_: Any, **__: Any) -> Any:
    raise AssertionError("the module is not shared yet")


def _next_size(count: int) -> int:
    """Returns the power of two that is at least `count`: compiled modules see few sizes."""
    return 1 << (count - 1).bit_length()


class _CannotSplit(Exception):
    """An output has values that belong to no row."""


def _row_kind(value: Any) -> Hashable:
    """Returns what must be equal in values of calls that share a forward."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return value if value is None or isinstance(value, bool | int | float | str) else object()


def _contents(call: ModuleCall) -> Hashable:
    """Returns the values of a call's tensors, which calls of one key may differ in."""
    tensors = [value for value in (*call.args, *call.arguments.values()) if isinstance(value, Tensor)]
    return tuple(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors)


def _joined(values: Sequence[Any]) -> Any:
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]


def _split(output: Any, counts: Sequence[int], places: Sequence[int]) -> list[Any]:
    """Returns each call's rows of an output: tensors, or tuples, lists and mappings of them.

    Args:
        output: for parts of `counts` rows.
        places: of each call, the number of its part. No two calls share memory.

    """
    if isinstance(output, Tensor):
        if output.ndim == 0 or len(output) != sum(counts):
            raise _CannotSplit
        parts = torch.split(output, list(counts))
        return [parts[part].clone() if part in places[:place] else parts[part] for place, part in enumerate(places)]
    if output is None or isinstance(output, Cache):  # of keys for further tokens, which no pipeline asks for
        return [None] * len(places)
    if isinstance(output, Mapping):
        columns = zip(*(_split(part, counts, places) for part in output.values()), strict=True)
        return [type(output)(**dict(zip(output, column, strict=True))) for column in columns]
    if isinstance(output, tuple | list):
        return [type(output)(column) for column in zip(*(_split(part, counts, places) for part in output), strict=True)]
    raise _CannotSplit
