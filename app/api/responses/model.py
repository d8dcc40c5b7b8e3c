"""A model of the catalog, with its limits and its state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from app.api.responses.result import OMITTED_IF_NONE
from app.catalog import Alias, Catalog, Inputs, Model, NAGDefaults, Range, RegisteredLora, SpeedSettings
from app.queue.registry import ModelState, Stage

__all__ = ["ModelView", "ModelsView", "ProgressView", "alias_view", "model_view"]


class ProgressView(BaseModel):
    """Of a download, or of loading into memory."""

    done_bytes: int
    total_bytes: int


class ModelView(BaseModel):
    """A model in OpenAI's shape, with its limits, and its state on the worker that is furthest with it.

    alias_of: of an alias, the id of the model that answers to it; all else is that model's.
    state: `cold` is loaded, and first downloaded if need be, by its first request; null while the queue cannot be
    reached. error: the cause of `failed`. request_loras: whether requests may name LoRAs; loras: those that the caller
    may name now. speed: how the model is computed, and where its weights are.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["nag-server"] = "nag-server"
    alias_of: Annotated[str | SkipJsonSchema[None], OMITTED_IF_NONE] = None
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
    prompt_max_tokens: int | None
    nag_supported: bool
    nag: NAGDefaults | None
    inputs: Inputs
    request_loras: bool
    loras: tuple[str, ...]
    speed: SpeedSettings
    profile: str | None
    state: Stage | None
    progress: ProgressView | None
    error: str | None


class ModelsView(BaseModel):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: list[ModelView]


def model_view(
    model: Model, catalog: Catalog, created: int, state: ModelState | None, loras: Iterable[RegisteredLora]
) -> ModelView:
    shared: dict[str, Any] = {
        name: getattr(model, name) for name in ModelView.model_fields.keys() & type(model).model_fields.keys()
    }
    progress = None
    if state is not None and state.total_bytes:
        progress = ProgressView(done_bytes=state.done_bytes, total_bytes=state.total_bytes)
    speed = SpeedSettings(**{name: getattr(model, name) for name in SpeedSettings.model_fields})
    return ModelView(
        **shared, speed=speed, created=created, default=model.id == catalog.default,
        nag_supported=model.nag is not None,
        loras=tuple(sorted({lora.id for lora in loras if catalog.takes(model, lora)})),
        state=None if state is None else state.stage, progress=progress,
        error=None if state is None else state.error or None,
    )  # fmt: skip


def alias_view(alias: Alias, model: ModelView) -> ModelView:
    """Makes the view of an alias from that of its model."""
    return model.model_copy(update={"id": alias.id, "alias_of": model.id, "default": False})
