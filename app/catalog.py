"""The catalog: which models are served, their limits and their defaults, read from TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.settings import Settings

__all__ = ["NAG_BOUNDS", "Catalog", "CatalogError", "Model", "NAGDefaults", "Range"]

BUILTIN = Path(__file__).with_name("models.toml")

#: What each number of the guidance may be, both ends included; the same for every model and every request.
NAG_BOUNDS: dict[str, tuple[float, float]] = {
    "scale": (1.0, 100.0),
    "tau": (1.0, 100.0),
    "alpha": (0.0, 1.0),
    "end": (0.0, 1.0),
}

Number = TypeVar("Number", int, float)


class CatalogError(Exception):
    """A catalog that cannot be used; the message names the file, the key and the value."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Range(_Entry, Generic[Number]):
    """A number's default and what a request may set it to, both ends included."""

    default: Number
    min: Number
    max: Number
    multiple: Number | None = None
    offset: Number | None = None  # added to the multiple: a grid of 5, 9, 13, … is 4 and 1

    def holds(self, value: Number) -> bool:
        """False for a value out of range, off the grid, or NaN."""
        return self.min <= value <= self.max and (
            self.multiple is None or (value - (self.offset or 0)) % self.multiple == 0
        )

    def __str__(self) -> str:
        grid = "" if self.multiple is None else f", a multiple of {self.multiple:g}"
        return f"{self.min:g} to {self.max:g}{grid}{f' plus {self.offset:g}' if self.offset else ''}"

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.multiple is not None and self.multiple <= 0:
            raise ValueError(f"multiple must be above 0, not {self.multiple:g}")
        if self.multiple is None and self.offset is not None:
            raise ValueError("offset needs a multiple to be added to")
        if not self.holds(self.default):
            raise ValueError(f"default {self.default:g} is not within {self}")
        return self


class NAGDefaults(_Entry):
    """The guidance a request gets that names no numbers of its own."""

    scale: float
    tau: float
    alpha: float
    end: float

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for name, (low, high) in NAG_BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low:g} to {high:g}, not {getattr(self, name)}")
        return self


class Model(_Entry):
    """One servable model. `nag` is None where its attention cannot be guided; a video's frames are None for images."""

    id: str
    description: str
    path: str
    family: str
    kind: Literal["image", "video"]
    dtype: Literal["float32", "bfloat16", "float16"]
    num_inference_steps: Range[int]
    guidance_scale: Range[float]
    width: Range[int]
    height: Range[int]
    num_frames: Range[int] | None = None
    fps: Range[int] | None = None  # shown a second; what is denoised does not depend on it
    prompt_max_chars: int = Field(ge=1)
    call: dict[str, Any] = {}
    nag: NAGDefaults | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        for name in ("num_frames", "fps"):
            given: Range[int] | None = getattr(self, name)
            if (given is not None) != (self.kind == "video"):
                raise ValueError(f"{name} is {'required' if given is None else 'unknown'} where kind is {self.kind}")
            if given is not None and given.min < 1:
                raise ValueError(f"{name}.min must be at least 1, not {given.min}")
        for name in ("width", "height") if self.kind == "video" else ():
            size: Range[int] = getattr(self, name)
            if (size.multiple or 1) % 2 or (size.offset or 0) % 2:
                raise ValueError(f"{name}.multiple must be even: a video has one colour for 2x2 pixels")
        return self

    @property
    def default_cost(self) -> int:
        """Of a picture or video with the defaults, in units of app.jobs.Generation.cost."""
        frames = 1 if self.num_frames is None else self.num_frames.default
        return self.width.default * self.height.default * frames * (2 if self.guidance_scale.default > 1 else 1)


class Catalog(_Entry):
    """Every model of this service; `default` serves a request that names none."""

    default: str
    models: dict[str, Model]

    @classmethod
    def load(cls, settings: Settings) -> Catalog:
        """The built-in catalog with the one of `settings.catalog` laid over it, entry by entry.

        Raises CatalogError for a file that cannot be read or does not fit.
        """
        files = [BUILTIN] if settings.catalog is None else [BUILTIN, settings.catalog.expanduser().resolve()]
        default, models = "", dict[str, Model]()
        for file in files:
            table = _read(file)
            default = table.pop("default", default)
            entries = table.pop("models", {})
            if table:
                raise CatalogError(f"{file}: {next(iter(table))}: unknown key (a catalog holds default and [models.*])")
            if not isinstance(entries, dict):
                raise CatalogError(f"{file}: models: must be tables, not {entries!r}")
            for name, entry in entries.items():
                models[name] = _model(file, name, entry)
            if default not in models:
                raise CatalogError(f"{file}: default: {default!r} is none of {', '.join(models)}")
        return cls(default=default, models=models)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CatalogError(f"{file}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise CatalogError(f"{file}: not TOML: {exc}") from exc


def _model(file: Path, name: str, entry: Any) -> Model:
    if not isinstance(entry, dict):
        raise CatalogError(f"{file}: models.{name}: must be a table, not {entry!r}")
    try:
        model = Model.model_validate({**entry, "id": name})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        key = ".".join(["models", name, *map(str, first["loc"])])
        # A missing key's "value" is the whole table around it: of no help, and long.
        value = "" if first["type"] == "missing" else f" (value: {first['input']!r})"
        raise CatalogError(f"{file}: {key}: {first['msg']}{value}") from exc
    # What is no folder here is left as it is: a name on the Hugging Face hub.
    folder = file.parent / Path(model.path).expanduser()
    return model.model_copy(update={"path": str(folder.resolve())}) if folder.is_dir() else model
