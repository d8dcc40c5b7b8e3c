"""For whoever watches the service: alive, ready."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.service import Here
from app.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while this process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: Here) -> dict[str, str]:
    """200 once a live worker holds the default model; 503 until then."""
    model = service.catalog.default
    workers = await service.queue.registry.workers()
    if not workers:
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=1)
    if not any(model in warm for warm in workers.values()):
        raise Unavailable(f"no worker holds {model} yet", code="model_loading", retry_after_s=1)
    return {"status": "ready"}
