"""What a generation starts from, in the words of a test."""

from __future__ import annotations

from typing import Any

from app.jobs import InputFile, InputRole

__all__ = ["edit", "starting_from"]


def edit(strength: float, image: str, mask: str | None = None) -> dict[str, Any]:
    """The fields of a Generation that changes the stored image of this name."""
    masks = {} if mask is None else {InputRole.MASK: mask}
    return {"strength": strength, **starting_from({InputRole.IMAGE: image, **masks})}


def starting_from(files: dict[InputRole, str]) -> dict[str, Any]:
    """The field of a Generation with a stored file of each role."""
    return {"inputs": tuple(InputFile(role, name) for role, name in files.items())}
