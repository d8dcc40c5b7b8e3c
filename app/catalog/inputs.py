"""Which files a model's requests can start from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from app.catalog.table import CatalogTable
from app.jobs import TASKS, InputRole

__all__ = ["InputLimits", "Inputs", "field_of"]

#: The most files of any role.
FILES_MAX = 16


class InputLimits(CatalogTable):
    """How many files of one role a request may, or must, have.

    required: a request without one is refused; of a mask, a request with an image and no mask.
    """

    required: bool = False
    max: int = Field(default=1, ge=1, le=FILES_MAX)


class Inputs(CatalogTable):
    """By role of the file, how many a request may have; None for a role that the model takes no file of."""

    image: InputLimits | None = None
    mask: InputLimits | None = None
    references: InputLimits | None = None
    first_frame: InputLimits | None = None
    last_frame: InputLimits | None = None
    video: InputLimits | None = None

    def limits(self, role: InputRole) -> InputLimits | None:
        """Returns the limits of one role."""
        limits: InputLimits | None = getattr(self, field_of(role))
        return limits

    @property
    def roles(self) -> tuple[InputRole, ...]:
        """The roles of which the model takes files."""
        return tuple(role for role in InputRole if self.limits(role) is not None)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model can do with files, in the words of `Generation.task`."""
        tasks = [task for role, task in TASKS.items() if self.limits(role) is not None]
        if self.mask is not None and self.mask.required:
            tasks.remove("img2img")
        return tuple(tasks)

    @property
    def required_roles(self) -> tuple[InputRole, ...]:
        """The roles without a file of which the model makes nothing; a mask is needed only with an image."""
        roles = [role for role in self.roles if role is not InputRole.MASK]
        return tuple(role for role in roles if (limits := self.limits(role)) and limits.required)

    def image_roles(self, images: int, *, is_masked: bool, has_strength: bool) -> tuple[InputRole, ...] | None:
        """Returns the roles of so many images to edit, and of a mask behind them; None if the model cannot.

        An image is a reference to a model that is told by the prompt what to change, unless the request has a mask or,
        for a model that can do both, a strength.
        """
        if is_masked:
            return (InputRole.IMAGE, InputRole.MASK) if images == 1 and "inpaint" in self.tasks else None
        if images == 1 and "img2img" in self.tasks and (has_strength or self.references is None):
            return (InputRole.IMAGE,)
        can_refer = self.references is not None and images <= self.references.max
        return (InputRole.REFERENCE,) * images if can_refer else None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        for role in InputRole:
            limits = self.limits(role)
            if limits is not None and limits.max > 1 and role is not InputRole.REFERENCE:
                raise ValueError(f"{role}.max must be 1: only references can be several, not {limits.max}")
        for name, other in (("mask", "image"), ("last_frame", "first_frame")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"{name} goes with {other}, which is missing")
        return self


def field_of(role: InputRole) -> str:
    """Returns the key of a role's files in an entry and in a request."""
    return "references" if role is InputRole.REFERENCE else role.value
