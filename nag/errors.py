"""The library's errors.

NAGError
├── UnsupportedPipeline   no family fits, or something on the pipeline cannot be guided exactly
└── InvalidParameter      a value outside its range; `name` says which
"""

from __future__ import annotations

__all__ = ["InvalidParameter", "NAGError", "UnsupportedPipeline"]


class NAGError(Exception):
    """Base of every error raised by `nag`."""


class UnsupportedPipeline(NAGError):
    """The pipeline, or something loaded into it, cannot be guided exactly; the message says what and why."""


class InvalidParameter(NAGError, ValueError):
    """A parameter is out of its range. `name` is the parameter as the caller wrote it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
