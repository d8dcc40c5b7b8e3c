"""How an entry's pipeline is put together beyond its repository."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from app.catalog.speed import Names
from app.catalog.table import CatalogTable

__all__ = ["Autoencoder", "Dtype", "Lora", "Scheduler", "Size", "Source", "Weights"]

Dtype = Literal["float32", "bfloat16", "float16"]


class Source(CatalogTable):
    """A place weights come from: a folder, relative to the catalog's file, or a name on the Hugging Face hub.

    revision: a commit of the hub's repository, or a branch, which may change what is served from one start to the next.
    """

    repository: str
    revision: str = "main"


class Weights(Source):
    """One file of weights that takes the place of the repository's own denoiser weights.

    A GGUF file's quantized matrices stay so.
    """

    weight_name: str


class Autoencoder(Source):
    """Replaces the repository's VAE by one of the same class.

    weight_name: one file, loaded into the repository's own architecture; absent, the whole repository is a VAE.
    """

    weight_name: str | None = None


class Lora(Weights):
    """A LoRA, in force for every request.

    fuse: merged into the weights, which costs nothing per step; otherwise kept apart from them.
    into: the second denoiser of a model that has two; absent, the first.
    """

    scale: float = Field(default=1.0, gt=0)
    fuse: bool = True
    into: Literal["transformer_2"] | None = None


class Size(CatalogTable):
    """What the entry's weights take, for machines that do not have its files. In units of 10^9 bytes.

    An entry that extends another one has its size, unless it names a repository of its own.

    disk_gb: the files that are downloaded; absent if unknown. loaded_gb: all weights in the entry's dtypes, without
    quantization. largest_part_gb: of those, the largest component's. largest_parts: the components that have about this
    size, which a profile keeps in fewer bits first.
    """

    disk_gb: float | None = Field(default=None, gt=0)
    loaded_gb: float = Field(gt=0)
    largest_part_gb: float = Field(gt=0)
    largest_parts: Names = Field(default=("transformer",), min_length=1)


class Scheduler(CatalogTable):
    """The scheduler in the place of the repository's own, made from its config.

    options: what differs from that config; unset: options set to None, for which TOML has no word.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    unset: Names = ()

    @property
    def changes(self) -> dict[str, Any]:
        """Every option that differs."""
        return {**self.options, **dict.fromkeys(self.unset)}

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        for name in self.unset:
            if name in self.options:
                raise ValueError(f"{name} is among options and unset")
        return self
