"""The library's errors.

NAGError
├── UnsupportedPipeline   no family fits, or something on the pipeline cannot be guided exactly
├── InvalidParameter      a value outside its range; `name` says which
└── CannotJoin            denoiser calls that cannot share a forward; `argument` and `call` say why
"""

from __future__ import annotations

__all__ = ["CannotJoin", "InvalidParameter", "NAGError", "UnsupportedPipeline"]


class NAGError(Exception):
    """Base of every error raised by `nag`."""


class UnsupportedPipeline(NAGError):
    """The pipeline, or something loaded into it, cannot be guided exactly; the message says what and why."""


class InvalidParameter(NAGError, ValueError):
    """A parameter is out of its range. `name` is the parameter as the caller wrote it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class CannotJoin(NAGError):
    """A denoiser call cannot share a forward with the first of those it was joined with.

    Attributes:
        argument: the denoiser's argument that keeps them apart; "negative" for the rows' negative prompts.
        call: the place of the call among those given. Without it, the ones before it join.

    """

    def __init__(self, argument: str, call: int, message: str) -> None:
        super().__init__(f"call {call} cannot join the first: {argument} {message}")
        self.argument, self.call = argument, call
