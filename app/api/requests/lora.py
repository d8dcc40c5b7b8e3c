"""The form by which a LoRA is uploaded."""

from __future__ import annotations

from typing import Any

from app.api.requests.body import Body, OptionalText

__all__ = ["LoraBody"]


class LoraBody(Body):
    """POST /v1/loras, a form."""

    file: Any = None
    """A safetensors file of float32, float16 or bfloat16."""

    id: OptionalText = None
    """Name by which requests use it. Default: the name of the file without .safetensors."""

    base: str
    """Id of the model that it was trained for."""

    trigger_words: OptionalText = None
    """Comma-separated words of a prompt that bring it out."""

    scale_default: float | None = None
    """Weight of a request that states none. Default: 1."""

    scale_min: float | None = None
    """Smallest weight that a request may state. Default: 0."""

    scale_max: float | None = None
    """Largest weight that a request may state. Default: 2."""

    description: OptionalText = None
    licence: OptionalText = None
    shared: bool = False
    """Whether all tenants may use it, which needs the scope admin. Otherwise only the caller may."""
