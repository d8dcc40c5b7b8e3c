"""What can be asked for, and within which limits."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.resolve import find_model
from app.api.service import Here
from app.api.views.model import ModelsView, ModelView, model_view

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(service: Here) -> ModelsView:
    """Every model of the catalog: limits, defaults, and whether it supports NAG."""
    catalog = service.catalog
    return ModelsView(data=[model_view(each, catalog, service.started_at) for each in catalog.models.values()])


@router.get("/v1/models/{model_id:path}")
async def get_model(model_id: str, service: Here) -> ModelView:
    """One model of the catalog."""
    return model_view(find_model(service.catalog, model_id), service.catalog, service.started_at)
