"""Errors of catalog files."""

from __future__ import annotations

from app.errors import CommandError

__all__ = ["CatalogError"]


class CatalogError(CommandError):
    """A catalog that cannot be used; the message names the file, the key and the value."""
