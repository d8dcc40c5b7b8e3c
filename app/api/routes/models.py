"""The models of the catalog, with their limits and states."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from redis.exceptions import RedisError

from app.api.model_selection import find_model
from app.api.responses.model import ModelsView, ModelView, alias_view, model_view
from app.api.service import Here
from app.catalog import Model, RegisteredLora
from app.errors import InvalidParameter, NotFound
from app.queue.registry import ModelState

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(service: Here) -> ModelsView:
    """Returns every model of the catalog, then its aliases: limits, defaults, state, and whether it supports NAG."""
    views = {view.id: view for view in await _views(service, service.catalog.models.values())}
    aliases = [alias_view(alias, views[alias.model]) for alias in service.catalog.aliases.values()]
    return ModelsView(data=[*views.values(), *aliases])


@router.get("/v1/models/{model_id:path}")
async def get_model(model_id: str, service: Here) -> ModelView:
    """Returns one model of the catalog, or one of its aliases."""
    try:
        model = find_model(service.catalog, model_id)
    except InvalidParameter as error:
        raise NotFound(error.message, param=error.param, code=error.error_code) from None
    view = (await _views(service, [model]))[0]
    alias = service.catalog.aliases.get(model_id)
    return view if alias is None else alias_view(alias, view)


async def _views(service: Here, models: Iterable[Model]) -> list[ModelView]:
    loras: dict[str, RegisteredLora] = {**service.catalog.loras}
    try:
        states = await service.queue.registry.model_states()
        loras |= await service.uploaded_loras()
    except RedisError:  # the limits are known all the same
        states = None
    return [
        model_view(
            model, service.catalog, service.started_at,
            None if states is None else states.get(model.id, ModelState()), loras.values(),
        )
        for model in models
    ]  # fmt: skip
