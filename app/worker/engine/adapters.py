"""LoRAs of single rows: each row of a module's call runs with its own, over one set of base weights.

Hooks on the adapted layers add `scale · up(down(x))` to the rows that use a LoRA; the base layer runs once, for all
rows. A sum of such products is the product of concatenated ranks, so several LoRAs of a row are exact. peft's own mixed
batches (`adapter_names`) were no choice: they take one adapter per row, ask for as many rows in every layer as in the
call, and wrap the layers, which changes the module's structure and the names of its weights.

Hooks stand only while a call with LoRAs runs. So a call without them is the plain model, also a compiled one, and one
that is let go leaves no trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nag
from app.jobs import LoraUse
from app.loading.adapters import Factors

__all__ = ["CALL_LORAS", "Loras", "RowAdapters", "RowLayout", "sort_key"]

#: What a request uses, in the order of the request.
Loras = tuple[LoraUse, ...]

#: The LoRAs of the pipeline call that runs in this context.
CALL_LORAS: ContextVar[Loras] = ContextVar("call_loras", default=())
CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


@dataclass(frozen=True)
class RowLayout:
    """How the rows that a layer is given follow from those of the module's call.

    Attributes:
        guided: the rows for which layers may be called alone: those whose negative prompt is embedded.
        copies: adjacent rows that each may have (a video's frames).

    """

    guided: slice = field(default_factory=lambda: slice(0, 0))
    copies: int = 1


@dataclass(frozen=True, eq=False)
class _Selection:
    """The rows of a layer's input that use a LoRA, and its weight in each: one number if all have the same."""

    rows: slice | Tensor
    scale: float | Tensor


class _RowWeights:
    """The weight of one LoRA in each row of the call under way, 0 in rows without it.

    Calls `on_unordered` if it is unknown which of a layer's rows is whose.
    """

    def __init__(
        self, scales: Sequence[float], layout: RowLayout, device: torch.device, on_unordered: Callable[[], object]
    ) -> None:
        self.scales = tuple(scales)
        self._layout, self._device, self._on_unordered = layout, device, on_unordered
        self._selections: dict[tuple[int, int], _Selection | None] = {}

    def select(self, count: int, ndim: int) -> _Selection | None:
        """Returns the rows among `count`, of a tensor with `ndim` dimensions; None if none of them uses the LoRA.

        Raises:
            nag.CannotJoin: it is unknown which of the rows is whose.

        """
        if (count, ndim) not in self._selections:
            self._selections[count, ndim] = self._select(count, ndim)
        return self._selections[count, ndim]

    def _select(self, count: int, ndim: int) -> _Selection | None:
        if len(set(self.scales)) == 1:  # whatever the order of the rows is
            return _Selection(slice(None), self.scales[0])
        scales, copies, guided = self.scales, self._layout.copies, self.scales[self._layout.guided]
        if count not in (len(scales), len(scales) * copies):
            if count not in (len(guided), len(guided) * copies):
                self._on_unordered()
                why = f"are of single rows, and a layer got {count} rows in a call of {len(scales)}"
                raise nag.CannotJoin("loras", 1, why)
            scales = guided
        copies = count // len(scales)
        places = [row * copies + copy for row, scale in enumerate(scales) for copy in range(copies) if scale]
        used = [scale for scale in scales if scale for _ in range(copies)]
        if not places:
            return None
        rows: slice | Tensor = slice(places[0], places[-1] + 1)
        if len(places) != places[-1] + 1 - places[0]:
            rows = torch.tensor(places, device=self._device)
        if len(set(used)) == 1:
            return _Selection(rows, used[0])
        return _Selection(rows, torch.tensor(used, device=self._device).view(-1, *(1,) * (ndim - 1)))


class RowAdapters:
    """The LoRAs that a module's calls can use.

    Args:
        module: whose layers are adapted.
        unordered_layers: matches the names of layers that are given rows of unknown order, whatever their count is.
        is_compiled: whether torch compiles it; calls with LoRAs then run as if it did not.

    """

    def __init__(
        self, module: nn.Module, unordered_layers: re.Pattern[str] | None = None, *, is_compiled: bool = False
    ) -> None:
        self._module, self._unordered_layers, self._is_compiled = module, unordered_layers, is_compiled
        self._adapters: dict[str, dict[nn.Module, Factors]] = {}
        self._latest: tuple[Any, list[tuple[nn.Module, list[tuple[_RowWeights, Factors]]]]] | None = None
        #: LoRAs with layers that are given rows of unknown order.
        self._unmixable: set[str] = set()

    def add(self, lora: str, layers: Mapping[str, Factors]) -> None:
        """Makes a LoRA usable. layers: by name in the module."""
        if self._unordered_layers is not None and any(map(self._unordered_layers.fullmatch, layers)):
            self._unmixable.add(lora)
        self._adapters[lora] = {self._module.get_submodule(name): factors for name, factors in layers.items()}

    def remove(self, lora: str) -> None:
        """Lets a LoRA go, and its memory with it."""
        self._adapters.pop(lora, None)
        self._unmixable.discard(lora)
        self._latest = None

    @property
    def of_context(self) -> Loras:
        """Returns the LoRAs of the pipeline call in this context that change this module."""
        return self.effective(CALL_LORAS.get())

    def effective(self, loras: Loras) -> Loras:
        """Returns the LoRAs that change this module."""
        return tuple(use for use in loras if use.id in self._adapters and use.scale)

    def key(self, loras: Loras) -> Hashable:
        """Returns what must be equal in calls that share a forward: the LoRAs, if one of them mixes with no others."""
        if any(use.id in self._unmixable for use in loras):
            return loras
        return self._is_compiled and bool(loras)

    @contextmanager
    def rows(self, rows: Sequence[Loras], layout: RowLayout | None = None) -> Iterator[None]:
        """Runs each row of the module's calls inside the block with its LoRAs.

        Raises, when the module is called:
            nag.CannotJoin: a layer is given rows of unknown order, and the rows' LoRAs differ.

        """
        effective = tuple(self.effective(loras) for loras in rows)
        if not any(effective):
            yield
            return
        layout = layout or RowLayout()
        made_from = effective, layout.guided.start, layout.guided.stop, layout.copies
        if self._latest is None or self._latest[0] != made_from:
            self._latest = made_from, self._by_layer(effective, layout)
        with ExitStack() as stack:
            if self._is_compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for layer, terms in self._latest[1]:
                # Ahead of other hooks, which may change what the layer returns.
                hook = layer.register_forward_hook(partial(_add_terms, terms), prepend=True, with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _by_layer(
        self, rows: Sequence[Loras], layout: RowLayout
    ) -> list[tuple[nn.Module, list[tuple[_RowWeights, Factors]]]]:
        by_layer: dict[nn.Module, list[tuple[_RowWeights, Factors]]] = {}
        for lora in dict.fromkeys(use.id for loras in rows for use in loras):
            scales = [sum(use.scale for use in loras if use.id == lora) for loras in rows]
            layers = self._adapters[lora]
            device = next(iter(layers.values())).down.device
            weighing = _RowWeights(scales, layout, device, partial(self._unmixable.add, lora))
            for layer, factors in layers.items():
                by_layer.setdefault(layer, []).append((weighing, factors))
        return list(by_layer.items())


def sort_key(loras: Loras) -> tuple[tuple[str, float], ...]:
    """Orders requests so that equal LoRAs are side by side."""
    return tuple((use.id, use.scale) for use in loras)


def _add_terms(
    terms: Sequence[tuple[_RowWeights, Factors]], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any],
    output: Tensor,
) -> Tensor:  # fmt: skip
    """Returns a forward hook: adds what each LoRA makes of a layer's input to the rows of its output that use it."""
    x: Tensor = args[0] if args else kwargs["input"]
    for weighing, factors in terms:
        selection = weighing.select(len(x), x.ndim)
        if selection is not None:
            _add_product(layer, factors, selection, x, output)
    return output


def _add_product(layer: Any, factors: Factors, selection: _Selection, x: Tensor, output: Tensor) -> None:
    rows, down, up = selection.rows, factors.down, factors.up
    x = x[rows].to(down.dtype)
    if down.ndim == 2:
        hidden = F.linear(x, down)
    else:
        layer = getattr(layer, "base_layer", layer)
        hidden = CONVOLUTIONS[down.ndim](x, down, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
    hidden = (hidden * selection.scale).to(down.dtype)
    if isinstance(rows, slice) and down.ndim == 2 and output.is_contiguous() and output.dtype == up.dtype:
        output[rows].view(-1, len(up)).addmm_(hidden.reshape(-1, len(down)), up.t())
        return
    product = F.linear(hidden, up) if down.ndim == 2 else CONVOLUTIONS[up.ndim](hidden, up, groups=layer.groups)
    if isinstance(rows, slice):
        output[rows] += product.to(output.dtype)
    else:
        output.index_add_(0, rows, product.to(output.dtype))
