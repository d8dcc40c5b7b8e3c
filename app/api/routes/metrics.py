"""For Prometheus: what this API and the service measure, and where the workers show theirs."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from redis.exceptions import RedisError

from app.api.service import Here

router = APIRouter(tags=["health"])


class TargetGroup(BaseModel):
    """As Prometheus' HTTP service discovery reads it."""

    targets: list[str]
    labels: dict[str, str]


@router.get("/metrics", response_class=Response)
async def metrics(service: Here) -> Response:
    """Prometheus text format."""
    try:
        measures, workers = await service.queue.stats(), await service.queue.registry.workers()
    except RedisError:
        measures, workers = None, {}
    text = service.metrics.render(measures, workers, list(service.catalog.models))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/metrics/workers")
async def worker_targets(service: Here) -> list[TargetGroup]:
    """Returns the workers alive now, for Prometheus' `http_sd_configs`."""
    exporters = await service.queue.registry.exporters()
    return [TargetGroup(targets=[target], labels={}) for _, target in sorted(exporters.items())]
