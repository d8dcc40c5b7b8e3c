"""For whoever watches the service: alive, ready, measured."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

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
    workers = await service.queue.workers()
    if not workers:
        raise Unavailable("no worker is running", code="no_worker", retry_after_s=1)
    if not any(model in warm for warm in workers.values()):
        raise Unavailable(f"no worker holds {model} yet", code="model_loading", retry_after_s=1)
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(service: Here) -> Response:
    """Prometheus text format."""
    try:
        # A job that nobody came back for is counted here.
        for job in await asyncio.gather(*map(service.queue.get, list(service.metrics.pending))):
            if job is not None:
                service.metrics.observe(job)
        depths = {model: await service.queue.depth(model) for model in service.catalog.models}
        service.metrics.read_queue(depths, await service.queue.workers())
    except RedisError:
        service.metrics.queue_unreachable()
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
