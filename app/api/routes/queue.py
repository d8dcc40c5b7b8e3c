"""How long the queue is."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.responses.queue import QueueView, queue_view
from app.api.service import Here

router = APIRouter(tags=["queue"])


@router.get("/v1/queue")
async def get_queue(service: Here) -> QueueView:
    """Returns how many jobs wait for each model, and how long a job sent now would wait: null if that is not known."""
    return queue_view(await service.queue.loads(), service.catalog)
