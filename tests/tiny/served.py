"""A small random video pipeline as the service finds one: a folder, and a catalog file beside it."""

from __future__ import annotations

from pathlib import Path

from tests.catalogs import MODEL, write
from tests.tiny.wan import wan


def wan_catalog(folder: Path) -> Path:
    """Writes both into the folder; the catalog's path."""
    wan().save_pretrained(folder / MODEL)
    return write(folder)
