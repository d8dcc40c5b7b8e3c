"""The catalog of one process: every entry that is known, and those that are served."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import Field

from app.catalog import files
from app.catalog.aliases import OFF, Alias, aliases, first_of
from app.catalog.entry import Kind, Model
from app.catalog.errors import CatalogError
from app.catalog.loras import CatalogLora, RegisteredLora
from app.catalog.table import CatalogTable
from app.settings import Settings

__all__ = ["Catalog"]

HERE = Path(__file__).parent
#: Served if the settings name no models.
EMBEDDED = HERE.with_name("models.toml")
#: Served if the settings name them: their weights come from the Hugging Face hub.
HUB = HERE.with_name("hub_models.toml")


class Catalog(CatalogTable):
    """Every model of this service; `default` serves a request that names none.

    loras: those that requests may name, of all models that the files know. bases: by the id of a model, the models
    whose LoRAs it takes; absent, its own alone. aliases: further names of the models.
    """

    default: str
    models: dict[str, Model]
    loras: dict[str, CatalogLora] = Field(default_factory=dict)
    bases: dict[str, frozenset[str]] = Field(default_factory=dict)
    aliases: dict[str, Alias] = Field(default_factory=dict)

    @classmethod
    def load(cls, settings: Settings) -> Catalog:
        """Returns the models that are served: those of `settings.models`, else the embedded ones and those of
        `settings.catalog`, whose entries go before built-in ones of the same name.

        Raises CatalogError for a file that cannot be read or does not fit, and for a model that no file has.
        """
        read = _read(settings)
        known, default, unasked = _models(read)
        names = settings.models if settings.models is not None else unasked
        models = {name: known[name] for name in names if name in known}
        for name in names:
            if name not in known:
                raise CatalogError(f"NAG_MODELS: {name!r} is none of {', '.join(known)}")
        default = default if default in models else next(iter(models))
        tables = files.aliases(read, known)
        is_off = settings.aliases == (OFF,)
        return cls(
            default=default,
            models=models,
            loras=files.loras(read, known),
            bases=_bases(known, files.lineages(read)),
            aliases={} if is_off else aliases(_names(settings.aliases), tables, models, default),
        )

    def default_of(self, kind: Kind | None) -> Model | None:
        """Returns the default, or if that is of another kind the first of this one; None if there is none."""
        return first_of(kind, self.models, self.default)

    def own_id(self, name: str) -> str:
        """Returns the id of the model that has this alias; any other name as it is."""
        return self.aliases[name].model if name in self.aliases else name

    @property
    def served_loras(self) -> dict[str, CatalogLora]:
        """Those that a served model takes."""
        return {
            name: lora
            for name, lora in self.loras.items()
            if any(self.takes(model, lora) for model in self.models.values())
        }

    def takes(self, model: Model, lora: RegisteredLora) -> bool:
        """Whether requests of this model may name this LoRA."""
        return model.request_loras and lora.base in self.bases.get(model.id, {model.id})

    @classmethod
    def known(cls, settings: Settings) -> dict[str, Model]:
        """Returns every entry of every file, served or not. Raises CatalogError."""
        return _models(_read(settings))[0]

    @classmethod
    def known_loras(cls, settings: Settings) -> dict[str, CatalogLora]:
        """Returns every LoRA of every file, also of models that are not served. Raises CatalogError."""
        read = _read(settings)
        return files.loras(read, _models(read)[0])


@cache
def _read_own() -> tuple[files.CatalogFile, ...]:
    """Reads the files that are part of the program, once per process."""
    return files.read(EMBEDDED), files.read(HUB)


def _read(settings: Settings) -> list[files.CatalogFile]:
    read = [*_read_own()]
    if settings.catalog is not None:
        read.append(files.read(settings.catalog.expanduser().resolve()))
    return read


def _models(read: Sequence[files.CatalogFile]) -> tuple[dict[str, Model], str, Sequence[str]]:
    """Returns every entry, the default's name, and the names of those served if the settings name none."""
    models = files.models(read)
    served = [name for file in read if file.path != HUB for name in file.entries]
    default = ""
    for file in read:
        default = file.default or default
        if file.default is not None and file.default not in models:
            raise CatalogError(f"{file.path}: default: {file.default!r} is none of {', '.join(models)}")
    return models, default, list(dict.fromkeys([*served, default]))


def _names(written: Sequence[str] | None) -> dict[str, str | None] | None:
    """Reads `name` and `name=model`. Raises CatalogError."""
    if written is None:
        return None
    names: dict[str, str | None] = {}
    for text in written:
        name, _, model = map(str.strip, text.partition("="))
        if not name or name == OFF or name in names or ("=" in text and not model):
            raise CatalogError(f"NAG_ALIASES: {text!r}: must be a name or name=model, each name once, or {OFF} alone")
        names[name] = model or None
    return names


def _bases(models: Mapping[str, Model], lineages: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Returns by the id of each model the entries that it extends, and those with the same weights."""
    same: dict[Hashable, set[str]] = {}
    for model in models.values():
        same.setdefault((model.repository, model.revision, model.denoiser), set()).add(model.id)
    return {
        model.id: frozenset(lineages[model.id]) | same[model.repository, model.revision, model.denoiser]
        for model in models.values()
    }
