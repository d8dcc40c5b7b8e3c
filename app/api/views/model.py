"""What can be asked of a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from app.catalog import Catalog, EditTask, Model, NAGDefaults, Range

__all__ = ["ModelView", "ModelsView", "model_view"]


class ModelView(BaseModel):
    """A model in OpenAI's shape, and what can be asked of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["nag-server"] = "nag-server"
    description: str
    kind: str
    family: str
    default: bool
    num_inference_steps: Range[int]
    guidance_scale: Range[float]
    width: Range[int]
    height: Range[int]
    num_frames: Range[int] | None
    fps: Range[int] | None
    prompt_max_chars: int
    nag_supported: bool
    nag: NAGDefaults | None
    edits: tuple[EditTask, ...]


class ModelsView(BaseModel):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[ModelView]


def model_view(model: Model, catalog: Catalog, created: int) -> ModelView:
    shared: dict[str, Any] = {
        name: getattr(model, name) for name in ModelView.model_fields.keys() & type(model).model_fields.keys()
    }
    return ModelView(
        **shared, created=created, default=model.id == catalog.default, nag_supported=model.nag is not None
    )
