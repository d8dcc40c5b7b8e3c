"""One guidance scale a row, where a pipeline takes one number a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["RowScale", "row_scale", "scales_become_rows"]


class RowScale(float):
    """The scales of a batch's rows, to be passed where a pipeline wants a float.

    To Python it is its largest, so that `guidance_scale > 1` is true when it is for any row. To torch it is one number
    a row: `guidance_scale * (conditional - unconditional)` multiplies each row by its own. Within
    `scales_become_rows` a tensor made of it has an element a row.
    """

    scales: tuple[float, ...]

    def __new__(cls, scales: Sequence[float]) -> RowScale:
        self = super().__new__(cls, max(scales))
        self.scales = tuple(scales)
        return self

    def tensor(self, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        """(B,)."""
        return torch.tensor(self.scales, dtype=dtype, device=device)

    def beside(self, other: Tensor) -> Tensor:
        """(B, 1, …), to meet a tensor (B, …). Raises ValueError where that has other rows."""
        if other.ndim == 0 or other.shape[0] != len(self.scales):
            raise ValueError(f"{len(self.scales)} guidance scales meet a tensor of shape {tuple(other.shape)}")
        # Python's number takes a tensor's dtype; so does this.
        dtype = other.dtype if other.is_floating_point() else torch.get_default_dtype()
        return self.tensor(dtype, other.device).view(-1, *[1] * (other.ndim - 1))

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        values = (*args, *kwargs.values())
        rows = max((each for each in values if isinstance(each, Tensor)), key=Tensor.dim)

        def meet(value: Any) -> Any:
            return value.beside(rows) if isinstance(value, RowScale) else value

        return func(*map(meet, args), **{name: meet(value) for name, value in kwargs.items()})

    def _each(self, change: Callable[[float], float]) -> RowScale:
        return RowScale([change(scale) for scale in self.scales])

    # Numbers alone: with a tensor these are NotImplemented, and torch is asked.
    def __add__(self, other: Any) -> Any:
        return self._each(lambda scale: scale + other) if isinstance(other, int | float) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self._each(lambda scale: scale - other) if isinstance(other, int | float) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return self._each(lambda scale: other - scale) if isinstance(other, int | float) else NotImplemented

    def __mul__(self, other: Any) -> Any:
        return self._each(lambda scale: scale * other) if isinstance(other, int | float) else NotImplemented

    def __truediv__(self, other: Any) -> Any:
        return self._each(lambda scale: scale / other) if isinstance(other, int | float) else NotImplemented

    __radd__ = __add__
    __rmul__ = __mul__


def row_scale(scales: Sequence[float]) -> float:
    """A plain float where the rows agree."""
    return scales[0] if len(set(scales)) == 1 else RowScale(scales)


class _MakingTensors(TorchFunctionMode):
    """`torch.full([1], s)`, `torch.tensor([s] * B)` and `torch.tensor(s).repeat(B)` as distilled models are told of
    their guidance: each becomes (B,).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.full, torch.tensor, torch.as_tensor):
            value = args[-1] if args else kwargs.get("fill_value", kwargs.get("data"))
            scale = value[0] if isinstance(value, list) and value else value
            if isinstance(scale, RowScale):
                made = scale.tensor(kwargs.get("dtype", torch.get_default_dtype()), kwargs.get("device"))
                made.of_rows = True  # type: ignore[attr-defined]
                return made
        if func is Tensor.repeat and getattr(args[0], "of_rows", False):
            return args[0]
        return func(*args, **kwargs)


@contextmanager
def scales_become_rows(scale: float) -> Iterator[Callable[[], None]]:
    """Tensors made of `scale` have an element a row, until the yielded function is called: a denoiser's every call
    would pay for the looking.
    """
    with ExitStack() as stack:
        if isinstance(scale, RowScale):
            stack.enter_context(_MakingTensors())
        yield stack.close
