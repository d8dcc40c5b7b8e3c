"""LoRAs that requests name, unlike an entry's own `lora`, which is in force for every request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from app.catalog.loading import Weights
from app.catalog.ranges import Range
from app.catalog.speed import Names
from app.catalog.table import CatalogTable

__all__ = ["LORA_ID", "CatalogLora", "RegisteredLora", "UploadedLora", "is_uploaded"]

#: Safe in a URL, in a form, on a command line and in a file's name. `@` is left for versions.
LORA_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: No weight beyond it, in either direction, makes anything but noise.
SCALE_MAX = 100.0
#: Between the id of an uploaded LoRA and its version.
AT = "@"
TRIGGER_WORDS_MAX, TRIGGER_WORD_MAX_CHARS, TEXT_MAX_CHARS = 32, 200, 2000


class RegisteredLora(CatalogTable):
    """A LoRA that requests name by its id.

    base: the id of the model that it was trained for. Models that extend it or share its weights take it as well.
    trigger_words: what a prompt says to bring it out; the service adds none.
    scale: the weight of a request that says none, and what it may say.
    """

    id: Annotated[str, Field(pattern=LORA_ID)]
    base: str
    description: Annotated[str, Field(max_length=TEXT_MAX_CHARS)] = ""
    licence: Annotated[str | None, Field(max_length=TEXT_MAX_CHARS)] = None
    trigger_words: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=TRIGGER_WORD_MAX_CHARS)], ...],
        Field(max_length=TRIGGER_WORDS_MAX, strict=False),
    ] = ()
    scale: Range[float] = Range[float](default=1.0, min=0.0, max=2.0)

    @property
    def use_id(self) -> str:
        """The id that a job names it by: of one file, now and later."""
        return self.id

    @model_validator(mode="after")
    def _scale_is_bounded(self) -> Self:
        if not -SCALE_MAX <= self.scale.min <= self.scale.max <= SCALE_MAX:
            raise ValueError(f"scale must be within {-SCALE_MAX:g} and {SCALE_MAX:g}, not {self.scale}")
        return self


class CatalogLora(RegisteredLora):
    """A LoRA of the catalog, which everybody may use.

    path: its file; relative to the catalog's file. weight_name: its file in a repository of the Hugging Face hub.
    """

    path: str | None = None
    repository: str | None = None
    weight_name: str | None = None
    revision: str = "main"

    @property
    def source(self) -> Weights:
        """Where its file comes from: a folder, or a repository of the hub."""
        if self.path is not None:
            path = Path(self.path)
            return Weights(repository=str(path.parent), weight_name=path.name)
        assert self.repository is not None
        assert self.weight_name is not None
        return Weights(repository=self.repository, weight_name=self.weight_name, revision=self.revision)

    @model_validator(mode="after")
    def _has_one_file(self) -> Self:
        if (self.path is None) == (self.repository is None):
            raise ValueError("either path or repository is required")
        if (self.repository is None) != (self.weight_name is None):
            raise ValueError("repository and weight_name go together")
        if self.path is not None and self.revision != "main":
            raise ValueError("revision: a path has none")
        return self


class UploadedLora(RegisteredLora):
    """A LoRA that was uploaded to this service.

    version: tells its file from one that is uploaded under the same id after it was deleted. tenant: who may use it;
    None: everybody. layers, rank and parts: what its file holds.
    """

    version: str
    tenant: str | None
    sha256: str
    size_bytes: int
    created_at: float
    layers: int
    rank: int
    parts: Names

    @property
    def use_id(self) -> str:
        """`<id>@<version>`."""
        return f"{self.id}{AT}{self.version}"


def is_uploaded(use_id: str) -> bool:
    """Whether a LoRA that a job uses was uploaded; otherwise it is one of the catalog."""
    return AT in use_id
