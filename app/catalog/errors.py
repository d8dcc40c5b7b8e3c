"""What a catalog can be wrong about."""

from __future__ import annotations

__all__ = ["CatalogError"]


class CatalogError(Exception):
    """A catalog that cannot be used; the message names the file, the key and the value."""
