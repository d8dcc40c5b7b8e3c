"""Encoded negative prompts and their rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nag.errors import InvalidParameter

__all__ = ["NegativeEmbeds", "pad_prompts", "scatter_rows", "stack_rows", "stacking_key"]

#: Prompts, tokens, channels; some models have the text encoder's layers too.
EMBEDS_NDIM_MIN = 3


@dataclass(frozen=True, eq=False, init=False)
class NegativeEmbeds:
    """Encoded negative prompts, as the pipeline's encode_prompt returns them; N is 1 or one per prompt.

    Text keys are kept for each object: one that stays the same from step to step saves computing them again.

    Attributes:
        embeds: (N, L, C).
        pooled: (N, P), if the family has one.
        mask: (N, L), 1 at the tokens to attend to, if the family masks its text.
        extra: what else the denoiser reads of a prompt, by the denoiser's argument names; each (N, ...).

    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __init__(
        self,
        embeds: Tensor,
        pooled: Tensor | None = None,
        mask: Tensor | None = None,
        extra: dict[str, Tensor] | None = None,
        *,
        more: dict[str, Tensor] | None = None,
    ) -> None:
        """Takes `more`, the deprecated name of `extra`, as well."""
        if more is not None:
            if extra is not None:
                raise InvalidParameter("more", "is the former name of extra; give one of them")
            _warn_of_more()
            extra = more
        for name, value in (("embeds", embeds), ("pooled", pooled), ("mask", mask), ("extra", extra or {})):
            object.__setattr__(self, name, value)

    @property
    def more(self) -> dict[str, Tensor]:
        """The deprecated name of `extra`."""
        _warn_of_more()
        return self.extra

    def check(self, name: str) -> None:
        """Raises InvalidParameter, for the parameter `name`, unless guidance by these tensors is a number."""
        if not self.embeds.is_floating_point():
            raise InvalidParameter(name, f"must be floating point, got {self.embeds.dtype}")
        for tensor in (self.embeds, self.pooled, *self.extra.values()):
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise InvalidParameter(name, "holds values that are not finite numbers")
        if self.embeds.ndim < EMBEDS_NDIM_MIN or 0 in self.embeds.shape:
            raise InvalidParameter(
                name, f"must be (prompts, tokens, channels), none of them 0, got {tuple(self.embeds.shape)}"
            )
        if self.mask is not None and (
            self.mask.shape != self.embeds.shape[:2] or not bool(self.mask.bool().any(dim=1).all())
        ):
            raise InvalidParameter(
                name,
                f"needs a mask of shape {tuple(self.embeds.shape[:2])} with at least one token in each row, "
                f"got {tuple(self.mask.shape)}",
            )

    def to(self, like: Tensor) -> NegativeEmbeds:
        """Moves to the device of `like`, and floating point to its dtype."""
        return self._map(lambda tensor: tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device))

    def at(self, index: Tensor) -> NegativeEmbeds:
        """Returns the rows that `index` (B,) names."""
        index = index.to(self.embeds.device)
        return self._map(lambda tensor: tensor[index])

    @property
    def rows(self) -> tuple[NegativeEmbeds, ...]:
        """The prompts one by one."""
        return tuple(self.at(torch.tensor([row])) for row in range(len(self.embeds)))

    def scatter_rows(self, rows: slice, count: int) -> NegativeEmbeds:
        """Returns `count` rows with these at `rows`; the others, which are not guided, are zero."""
        return self._map(lambda tensor: scatter_rows(tensor, rows, count))

    @property
    def token_mask(self) -> Tensor:
        """The mask (N, L), 1 at tokens; embeddings given without a mask have no padding."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.embeds.shape[:2], dtype=torch.long, device=self.embeds.device)

    def _map(self, change: Callable[[Tensor], Tensor]) -> NegativeEmbeds:
        pooled, mask = (None if tensor is None else change(tensor) for tensor in (self.pooled, self.mask))
        return NegativeEmbeds(
            change(self.embeds), pooled, mask, {name: change(tensor) for name, tensor in self.extra.items()}
        )


def _warn_of_more() -> None:
    # To the caller of the method that calls this function.
    warnings.warn("NegativeEmbeds.more is deprecated; use extra", DeprecationWarning, stacklevel=3)


def scatter_rows(guided: Tensor, rows: slice, count: int) -> Tensor:
    """Returns `count` rows with `guided` at `rows`; the others are zero."""
    if len(guided) == count:
        return guided
    every = guided.new_zeros(count, *guided.shape[1:])
    every[rows] = guided
    return every


def stack_rows(rows: Sequence[NegativeEmbeds], *, has_mask: bool) -> NegativeEmbeds:
    """Stacks negative prompts of one row each. Shorter prompts are padded under a mask.

    Raises:
        InvalidParameter: prompts of unequal length without `has_mask`, or not all with a pooled prompt or the same
            further inputs.

    """
    first, lengths = rows[0], [row.embeds.shape[1] for row in rows]
    if len({stacking_key(row, has_mask=has_mask) for row in rows}) > 1:
        raise InvalidParameter(
            "negative",
            f"prompts of {lengths} tokens cannot share a call: they need one length unless the family has a mask, and "
            "the same inputs",
        )
    if len(set(lengths)) > 1 or len({row.mask is None for row in rows}) > 1:
        rows = [_pad_row(row, max(lengths)) for row in rows]

    def join(tensors: Sequence[Tensor | None]) -> Tensor | None:
        return None if tensors[0] is None else torch.cat([tensor for tensor in tensors if tensor is not None])

    embeds = torch.cat([row.embeds for row in rows])
    extra = {name: torch.cat([row.extra[name] for row in rows]) for name in first.extra}
    return NegativeEmbeds(embeds, join([row.pooled for row in rows]), join([row.mask for row in rows]), extra)


def pad_prompts(rows: Sequence[Tensor]) -> NegativeEmbeds:
    """Stacks the tokens (L, C) of prompts, with a mask if they differ in number."""
    embeds = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
    mask = torch.arange(embeds.shape[1], device=embeds.device) < lengths[:, None]
    return NegativeEmbeds(embeds, mask=None if len({len(row) for row in rows}) == 1 else mask)


def stacking_key(row: NegativeEmbeds, *, has_mask: bool) -> Hashable:
    """Returns what must be equal in prompts that share a call."""
    length = None if has_mask else row.embeds.shape[1]
    extra = tuple((name, tensor.shape[1:]) for name, tensor in sorted(row.extra.items()))
    return length, has_mask or row.mask is None, row.embeds.shape[2:], row.pooled is None, extra


def _pad_row(row: NegativeEmbeds, length: int) -> NegativeEmbeds:
    tokens = (0, length - row.embeds.shape[1])
    embeds = F.pad(row.embeds, (0, 0) * (row.embeds.ndim - 2) + tokens)
    return replace(row, embeds=embeds, mask=F.pad(row.token_mask, tokens))
