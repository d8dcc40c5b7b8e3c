"""Errors of LoRA files."""

from __future__ import annotations

__all__ = ["LoraFileError"]


class LoraFileError(Exception):
    """A file that is no LoRA of the model. Clients may read the message, which names no folder."""
