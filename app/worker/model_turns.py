"""Decides which of its models a worker claims for first; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["ModelTurns"]

STAY = 8.0  # full batches of warm models before one that has to be loaded comes first: loading costs more than a batch


class ModelTurns:
    """The order of a worker's models: the one served longest ago first, but warm ones before cold ones.

    After STAY full batches of warm models, cold ones have their turn too. So models that do not fit together do not
    evict each other at every claim.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._models = list(models)
        self._stayed = 0.0

    def order(self, warm: Collection[str], loadable: Collection[str]) -> list[str]:
        """Returns the models to claim for; before the turn of the cold ones, only `loadable` ones of them."""
        if self._stayed >= STAY:
            return list(self._models)
        models = [model for model in self._models if model in warm or model in loadable]
        return sorted(models, key=lambda model: model not in warm)

    def note_claim(self, model: str, warm: Collection[str], batches: float) -> None:
        """Notes a claim of so many full batches; `warm` is what `order` was given."""
        self._stayed = self._stayed + batches if model in warm and self._stayed < STAY else 0.0
        self._models.remove(model)
        self._models.append(model)
