"""A LoRA that requests may name."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.catalog import Catalog, Range, RegisteredLora, UploadedLora

__all__ = ["LoraDeletedView", "LoraView", "LorasView", "lora_view"]


class LoraView(BaseModel):
    """A LoRA and the models of this service that take it.

    version: of an uploaded one, which is `id@version` in a job's answer; requests may name it so as well. origin:
    `catalog` and `shared` ones are everybody's, `own` ones the caller's tenant's. sha256 to created: of uploaded ones.
    """

    id: str
    object: Literal["lora"] = "lora"
    version: str | None
    origin: Literal["catalog", "shared", "own"]
    base: str
    models: tuple[str, ...]
    description: str
    licence: str | None
    trigger_words: tuple[str, ...]
    scale: Range[float]
    sha256: str | None
    size_bytes: int | None
    rank: int | None
    layers: int | None
    parts: tuple[str, ...] | None
    created: int | None


class LorasView(BaseModel):
    """OpenAI's list, of all that the caller may name."""

    object: Literal["list"] = "list"
    data: list[LoraView]


class LoraDeletedView(BaseModel):
    id: str
    object: Literal["lora"] = "lora"
    deleted: Literal[True] = True


def lora_view(lora: RegisteredLora, catalog: Catalog) -> LoraView:
    uploaded = lora if isinstance(lora, UploadedLora) else None
    origin: Literal["catalog", "shared", "own"] = "catalog"
    if uploaded is not None:
        origin = "shared" if uploaded.tenant is None else "own"
    return LoraView(
        id=lora.id,
        version=uploaded and uploaded.version,
        origin=origin,
        base=lora.base,
        models=tuple(model.id for model in catalog.models.values() if catalog.takes(model, lora)),
        description=lora.description,
        licence=lora.licence,
        trigger_words=lora.trigger_words,
        scale=lora.scale,
        sha256=uploaded and uploaded.sha256,
        size_bytes=uploaded and uploaded.size_bytes,
        rank=uploaded and uploaded.rank,
        layers=uploaded and uploaded.layers,
        parts=uploaded and uploaded.parts,
        created=None if uploaded is None else int(uploaded.created_at),
    )
