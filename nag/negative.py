"""An encoded negative prompt, and its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Negative", "filled"]


@dataclass(frozen=True)
class Negative:
    """Encoded negative prompts, as the pipeline's encode_prompt returns them; N is 1 or one per prompt.

    Attributes:
        embeds: (N, L, C).
        pooled: (N, P), where the family has one.
        mask: (N, L), 1 at the tokens to attend to, where the family masks its text.
        more: what else the denoiser reads of a prompt, by the denoiser's argument names; each (N, ...).

    """

    embeds: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    more: dict[str, Tensor] = field(default_factory=dict)

    def to(self, like: Tensor) -> Negative:
        """On the device of `like`, floating point in its dtype."""
        return self._each(lambda each: each.to(like) if each.is_floating_point() else each.to(like.device))

    def at(self, index: Tensor) -> Negative:
        """The rows `index` (B,) names."""
        index = index.to(self.embeds.device)
        return self._each(lambda each: each[index])

    def filled(self, rows: slice, count: int) -> Negative:
        """As `rows` of `count`; the others, which are not guided, are zero."""
        return self._each(lambda each: filled(each, rows, count))

    @property
    def seen(self) -> Tensor:
        """1 at its tokens, (N, L); embeddings given without a mask have no padding."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.embeds.shape[:2], dtype=torch.long, device=self.embeds.device)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Negative:
        pooled, mask = (None if each is None else change(each) for each in (self.pooled, self.mask))
        return Negative(change(self.embeds), pooled, mask, {name: change(each) for name, each in self.more.items()})


def filled(guided: Tensor, rows: slice, count: int) -> Tensor:
    """As `rows` of `count`; the others are zero."""
    if len(guided) == count:
        return guided
    every = guided.new_zeros(count, *guided.shape[1:])
    every[rows] = guided
    return every
