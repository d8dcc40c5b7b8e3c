"""The base of every table of a catalog file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["CatalogTable"]


class CatalogTable(BaseModel):
    """A frozen and strict table, which refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
