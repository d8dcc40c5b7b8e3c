"""Folders in which the service keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

from app.errors import CommandError

__all__ = ["FolderError", "writable_folder"]


class FolderError(CommandError):
    """A folder cannot be used."""


def writable_folder(path: Path, variable: str) -> Path:
    """Returns the folder, created for this user alone if it does not exist.

    Raises FolderError if it cannot be created or written to; `variable` is the setting that names another one.
    """
    advice = f"make it writable for this user, or set {variable} to another folder"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"the folder {path} cannot be created ({error.strerror}): {advice}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise FolderError(f"the folder {path} cannot be written to: {advice}")
    return path
