"""How long the queue is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel

from app.catalog import Catalog
from app.queue.stats import QueueLoad

__all__ = ["QueueView", "queue_view"]


class ModelQueueView(BaseModel):
    """What waits for a model. A unit of work is a denoised pixel: of every frame, at every step, twice with CFG."""

    model: str
    queued: int
    queued_work: int
    held_work: int
    workers: int
    work_per_s: float | None
    wait_s: float | None


class QueueView(BaseModel):
    """Every model of the catalog."""

    object: Literal["list"] = "list"
    data: list[ModelQueueView]


def queue_view(loads: Iterable[QueueLoad], catalog: Catalog) -> QueueView:
    known = {each.model: each for each in loads}
    listed = [known.get(model) or QueueLoad(model, 0, 0, 0, None, 0) for model in catalog.models]
    return QueueView(
        data=[ModelQueueView(**{name: getattr(each, name) for name in ModelQueueView.model_fields}) for each in listed]
    )
