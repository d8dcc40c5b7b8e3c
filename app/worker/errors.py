"""What keeps a worker from a model."""

from __future__ import annotations

__all__ = ["LoadError"]


class LoadError(Exception):
    """An entry that cannot be loaded here; the message names the model and what is missing or wrong."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(f"{model}: {why}")
        self.why = why
