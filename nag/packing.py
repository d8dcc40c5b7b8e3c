"""Where each prompt's tokens stand when the negative prompt travels behind the positive in a text-first sequence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Packing"]


@dataclass(frozen=True)
class Packing:
    """Token counts of a sequence `[positive | negative | image]`."""

    positive: int
    negative: int

    @property
    def text(self) -> int:
        """Tokens of both prompts."""
        return self.positive + self.negative

    def split(self, sequence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of the positive, negative and image tokens of (B, T, ...)."""
        return sequence[:, : self.positive], sequence[:, self.positive : self.text], sequence[:, self.text :]
