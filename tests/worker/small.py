"""Catalog entries whose repositories are local folders, written by tests.hub with small random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from app.catalog import Model, Source
from tests.hub.repositories import write_repositories

__all__ = ["in_folder"]

SourceT = TypeVar("SourceT", bound=Source)


def in_folder(entry: Model, folder: Path) -> Model:
    """The entry with everything it takes from the hub taken from `folder`, where it is made."""
    if Path(entry.repository).is_dir():  # an embedded model
        return entry
    write_repositories(folder, {source.repository for source in entry.sources.values()})

    def local(source: SourceT) -> SourceT:
        return source.model_copy(update={"repository": str(folder / source.repository), "revision": "main"})

    changes = {
        "denoiser": entry.denoiser and local(entry.denoiser),
        "vae": entry.vae and local(entry.vae),
        "lora": tuple(local(lora) for lora in entry.lora),
        # Half precision of this kind is slow on a CPU.
        "dtype": "float32" if entry.dtype == "float16" else entry.dtype,
    }
    return local(entry).model_copy(update=changes)
