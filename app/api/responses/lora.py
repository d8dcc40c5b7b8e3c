"""A LoRA that requests may name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from app.catalog import Catalog, Range, RegisteredLora, UploadedLora

__all__ = ["LoraDeletedView", "LoraView", "LorasView", "lora_view"]

#: What is known of uploaded ones alone.
FACTS = ("version", "sha256", "size_bytes", "rank", "layers", "parts")


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
    origin: Literal["catalog", "shared", "own"] = "catalog"
    facts: dict[str, Any] = dict.fromkeys(FACTS)
    if isinstance(lora, UploadedLora):
        origin = "shared" if lora.tenant is None else "own"
        facts = {name: getattr(lora, name) for name in FACTS}
    return LoraView(
        id=lora.id,
        origin=origin,
        base=lora.base,
        models=tuple(model.id for model in catalog.models.values() if catalog.takes(model, lora)),
        description=lora.description,
        licence=lora.licence,
        trigger_words=lora.trigger_words,
        scale=lora.scale,
        created=int(lora.created_at) if isinstance(lora, UploadedLora) else None,
        **facts,
    )
