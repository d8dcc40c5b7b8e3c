"""Which of its models a worker takes work for first: a pure decision."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["ModelTurns"]

STAY = 8  # batches of warm models before one that has to be loaded comes first: loading costs more than a batch


class ModelTurns:
    """The models in the order of their turns: the one served longest ago first, but warm ones before cold ones for
    STAY batches at most, so that models which do not fit together do not evict each other at every batch.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._models = list(models)
        self._stayed = 0

    def order(self, warm: Collection[str]) -> list[str]:
        if self._stayed < STAY:
            return sorted(self._models, key=lambda model: model not in warm)
        return list(self._models)

    def served(self, model: str, warm: Collection[str]) -> None:
        """A batch of `model` was begun; `warm` as it was told to `order`."""
        self._stayed = self._stayed + 1 if model in warm and self._stayed < STAY else 0
        self._models.remove(model)
        self._models.append(model)
