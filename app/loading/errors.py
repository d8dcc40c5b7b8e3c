"""Errors raised while fetching or loading a model."""

from __future__ import annotations

__all__ = ["LoadError", "LoraError", "RepositoryAccessError", "public_reason"]


class LoadError(Exception):
    """An entry that cannot be loaded here; the message names the model and what is missing or wrong."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(f"{model}: {why}")
        self.why = why


class RepositoryAccessError(LoadError):
    """A repository that the hub does not give to this machine. Clients may read the message."""


class LoraError(LoadError):
    """A LoRA that the model cannot use. Clients may read the message, which names no folder of this machine."""


def public_reason(error: Exception) -> str:
    """Returns what clients may read of an error: other messages can name folders of this machine."""
    return error.why if isinstance(error, RepositoryAccessError | LoraError) else type(error).__name__
