"""What is drawn: a request a prompt and method, resolved as the service resolves it, in batches that never change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.api.requests.generation import GenerationBody, NAGBody
from app.api.resolver import resolve
from app.catalog import NAG_BOUNDS, Catalog, Model
from app.errors import InvalidParameter
from app.jobs import Generation
from benchmarks.paper_table.prompts import Prompt
from nag import NAGParams

__all__ = ["METHODS", "Batch", "Plan", "PlanError"]

METHODS = ("none", "NAG")


class PlanError(ValueError):
    """A model, a prompt or a number that this table cannot be made of."""


@dataclass(frozen=True)
class Batch:
    """One pipeline call: places in the list of prompts. Both methods of the same places have the same number."""

    number: int
    method: str
    places: range


@dataclass(frozen=True)
class Plan:
    """Each prompt's seed is `first_seed` and its place in the list, whatever the method.

    asked: fields of a request in the place of the catalog's defaults. guidance: those of its `nag`.
    Raises PlanError for a model without NAG or of videos, and for what it does not take.
    """

    entry: Model
    prompts: Sequence[Prompt]
    rows: int  # a batch
    first_seed: int = 0
    asked: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entry.kind == "video":
            raise PlanError(
                f"{self.entry.id} makes videos; the table's metrics judge images, and one frame says nothing"
            )
        for place in range(len(self.prompts)):
            try:
                self.generation("NAG", place)
            except InvalidParameter as error:
                raise PlanError(f"prompt {place}, counted from 0: {error}") from error
        asked = self.generation("NAG", 0).nag
        assert asked is not None
        numbers = {name: getattr(asked, name) for name in NAG_BOUNDS}
        if not NAGParams(**numbers, method=asked.method).is_active:
            raise PlanError(f"NAG with {numbers} changes nothing, so there is nothing to compare")

    def generation(self, method: str, place: int) -> Generation:
        """Returns the request of one image."""
        prompt = self.prompts[place]
        nag = NAGBody(**self.guidance, negative_prompt=prompt.negative) if method == "NAG" else None
        body = GenerationBody(
            model=self.entry.id, prompt=prompt.text, seed=self.first_seed + place, nag=nag, **self.asked
        )
        return resolve(body, Catalog(default=self.entry.id, models={self.entry.id: self.entry})).request

    def batches(self) -> Iterator[Batch]:
        """Yields all batches, the methods in turn, so that what an aborted run leaves can be compared."""
        count = len(self.prompts)
        for number, start in enumerate(range(0, count, self.rows)):
            for method in METHODS:
                yield Batch(number, method, range(start, min(start + self.rows, count)))
