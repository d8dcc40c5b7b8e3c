"""LoRAs: those that requests may name, and uploads of more."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.lora_uploads import register_lora, remove_file
from app.api.middleware.public_address import public_address
from app.api.model_selection import find_model
from app.api.requests.forms import UploadRoute, take_upload
from app.api.requests.lora import LoraBody
from app.api.responses.lora import LoraDeletedView, LorasView, LoraView, lora_view
from app.api.service import Here, Service
from app.catalog import RegisteredLora, UploadedLora
from app.errors import Conflict, InvalidParameter, NotFound

router = APIRouter(tags=["loras"])
forms = APIRouter(tags=["loras"], route_class=UploadRoute)

LORAS = "/v1/loras"


class ListQuery(BaseModel):
    """Which LoRAs."""

    model: Annotated[str | None, Field(description="the id of a model: those that it takes")] = None


@forms.post(LORAS, status_code=201, response_model=LoraView)
async def add_lora(body: LoraBody, request: Request, service: Here) -> Response:
    """Register a LoRA: a safetensors file in the layout of diffusers, peft or kohya-ss.

    It is checked before it is stored: every tensor, against the base's layers if those are known.
    """
    upload = take_upload(request, "file")
    if upload is None:
        raise InvalidParameter("file: must be a file of the multipart/form-data body", param="file")
    view = lora_view(await register_lora(body, upload, service), service.catalog)
    return JSONResponse(
        view.model_dump(mode="json"), 201, {"location": f"{public_address(request).prefix}{LORAS}/{view.id}"}
    )


@router.get(LORAS)
async def list_loras(service: Here, query: Annotated[ListQuery, Query()]) -> LorasView:
    """Returns every LoRA that the caller may name: the catalog's for served models, the shared ones, and its own."""
    loras: dict[str, RegisteredLora] = {**service.catalog.served_loras}
    loras |= {lora.id: lora for lora in (await service.uploaded_loras()).values()}
    if query.model is not None:
        model = find_model(service.catalog, query.model)
        loras = {name: lora for name, lora in loras.items() if service.catalog.takes(model, lora)}
    return LorasView(data=[lora_view(lora, service.catalog) for _, lora in sorted(loras.items())])


@router.get("/v1/loras/{lora_id}")
async def get_lora(lora_id: str, service: Here) -> LoraView:
    """Returns one LoRA. One of another tenant is a 404."""
    return lora_view(await _find(lora_id, service), service.catalog)


@router.delete("/v1/loras/{lora_id}")
async def delete_lora(lora_id: str, service: Here) -> LoraDeletedView:
    """Remove an uploaded LoRA and its file. 409 while jobs that have not ended need it."""
    lora = await _find(lora_id, service)
    if not isinstance(lora, UploadedLora):
        raise Conflict(f"{lora.id} is a LoRA of the catalog, which requests do not change", code="lora_of_catalog")
    if lora.tenant is None:
        service.require_admin("to delete a LoRA that all tenants share")
    await service.queue.loras.drop(lora)
    await remove_file(lora, service)
    return LoraDeletedView(id=lora.id)


async def _find(lora_id: str, service: Service) -> RegisteredLora:
    found = (await service.uploaded_loras()).get(lora_id) or service.catalog.loras.get(lora_id)
    if found is None:
        raise NotFound(f"no LoRA {lora_id!r}; see GET /v1/loras", code="lora_not_found")
    return found
