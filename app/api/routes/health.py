"""Health checks: whether the process is alive, and whether it is ready."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.service import Here
from app.errors import Unavailable
from app.queue.registry import ModelState

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while this process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: Here) -> dict[str, str]:
    """200 while a live worker takes jobs of the default model, which it may have to load again first; else 503."""
    model, registry = service.catalog.default, service.queue.registry
    state = (await registry.model_states()).get(model, ModelState())
    if model in await registry.served_models() and state.stage not in ("downloading", "failed"):
        return {"status": "ready"}
    if not await registry.workers():
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=1)
    raise Unavailable(f"no worker serves {model} yet", code="model_loading", retry_after_s=1)
