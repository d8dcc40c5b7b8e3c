"""Decides which of its models a worker claims for first; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["ModelRotation"]

#: Rooms of warm models that are filled before a model that has to be loaded comes first: loading it takes long.
STAY = 8.0


class ModelRotation:
    """The order of a worker's models: the one served longest ago first, but warm ones before cold ones.

    After STAY rooms full of jobs for warm models, cold ones have their turn too. So models that do not fit together do
    not evict each other at every claim.
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

    def note_claim(self, model: str, warm: Collection[str], share: float) -> None:
        """Notes a claim of jobs that take this share of the model's room; `warm` is what `order` was given."""
        self._stayed = self._stayed + share if model in warm and self._stayed < STAY else 0.0
        self._models.remove(model)
        self._models.append(model)
