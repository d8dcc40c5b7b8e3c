"""The places of both prompts' tokens in an attention's sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenLayout"]


@dataclass(frozen=True)
class TokenLayout:
    """Token counts of both prompts, which always stand side by side: `[positive | negative]`.

    Attributes:
        positive: tokens of the positive prompt.
        negative: tokens of the negative prompt.
        text_last: whether both follow the image in joint attention, rather than stand before it.
        shared: tokens ahead of a text-first sequence that belong to neither prompt (registers): both see them.

    """

    positive: int
    negative: int
    text_last: bool = False
    shared: int = 0

    @property
    def text(self) -> int:
        """Tokens of both prompts."""
        return self.positive + self.negative

    def split(self, sequence: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Splits a joint sequence along `dim` into views of the shared, positive, negative and image tokens."""
        image = sequence.shape[dim] - self.text - self.shared
        if self.text_last:
            tokens, positive, negative = torch.split(sequence, [image, self.positive, self.negative], dim)
            return sequence.narrow(dim, 0, 0), positive, negative, tokens
        shared, positive, negative, tokens = torch.split(
            sequence, [self.shared, self.positive, self.negative, image], dim
        )
        return shared, positive, negative, tokens

    def of_one(self, sequence: Tensor, dim: int, *, negative: bool) -> Tensor:
        """Returns the sequence without one of the prompts; with the negative prompt if `negative`."""
        shared, of_positive, of_negative, image = self.split(sequence, dim)
        text = of_negative if negative else of_positive
        return torch.cat([image, text] if self.text_last else [shared, text, image], dim)

    def join(self, shared: Tensor, positive: Tensor, negative: Tensor, image: Tensor, dim: int) -> Tensor:
        """Joins the parts that `split` returns."""
        if self.text_last:
            return torch.cat([image, positive, negative], dim)
        return torch.cat([shared, positive, negative, image], dim)
