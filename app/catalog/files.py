"""From a catalog's files to its entries."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.catalog.aliases import AliasTable
from app.catalog.entry import Model
from app.catalog.errors import CatalogError
from app.catalog.loras import CatalogLora
from app.catalog.profiles import fitting_changes, recorded_footprint
from app.catalog.table import CatalogTable

__all__ = ["CatalogFile", "aliases", "lineages", "loras", "models", "read"]

EntryT = TypeVar("EntryT", bound=CatalogTable)

#: The key by which an entry takes another's values if it has none of its own.
EXTENDS = "extends"
#: What the former key `edits` said, as inputs.
FORMER_EDITS: dict[frozenset[str], dict[str, Any]] = {
    frozenset(): {},
    frozenset({"img2img"}): {"image": {}},
    frozenset({"inpaint"}): {"image": {}, "mask": {"required": True}},
    frozenset({"img2img", "inpaint"}): {"image": {}, "mask": {}},
}


@dataclass(frozen=True)
class CatalogFile:
    """One file as it was written."""

    path: Path
    default: str | None
    entries: dict[str, dict[str, Any]]
    loras: dict[str, dict[str, Any]]
    aliases: dict[str, dict[str, Any]]


def read(path: Path) -> CatalogFile:
    """Raises CatalogError for a file that cannot be read, is not TOML, or is no catalog."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise CatalogError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise CatalogError(f"{path}: not TOML: {exc}") from exc
    default, entries, loras = table.pop("default", None), table.pop("models", {}), table.pop("loras", {})
    aliases = table.pop("aliases", {})
    if table:
        known = "default, [models.*], [loras.*] and [aliases.*]"
        raise CatalogError(f"{path}: {next(iter(table))}: unknown key (a catalog holds {known})")
    if default is not None and not isinstance(default, str):
        raise CatalogError(f"{path}: default: must be a model's name, not {default!r}")
    for key, tables in (("models", entries), ("loras", loras), ("aliases", aliases)):
        if not isinstance(tables, dict):
            raise CatalogError(f"{path}: {key}: must be tables, not {tables!r}")
        for name, entry in tables.items():
            if not isinstance(entry, dict):
                raise CatalogError(f"{path}: {key}.{name}: must be a table, not {entry!r}")
    try:
        entries = {name: _with_present_keys(entry) for name, entry in entries.items()}
    except ValueError as exc:
        raise CatalogError(f"{path}: {exc}") from exc
    return CatalogFile(path, default, entries, loras, aliases)


def _with_present_keys(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry that was written for a former version under the keys that it has now. Raises ValueError."""
    edits = entry.get("edits")
    if edits is None:
        return entry
    inputs = FORMER_EDITS.get(frozenset(map(str, edits))) if isinstance(edits, list) else None
    if inputs is None or "inputs" in entry:
        raise ValueError(
            f"edits: write inputs in its place, as inputs = {{ image = {{}}, mask = {{}} }}, not {edits!r}"
        )
    return {key: value for key, value in entry.items() if key != "edits"} | {"inputs": inputs}


def models(read: Sequence[CatalogFile]) -> dict[str, Model]:
    """Returns all entries of the files. If two have the same name, that of the later file counts.

    Raises CatalogError.
    """
    by_name: dict[str, Model] = {}
    raw: dict[str, dict[str, Any]] = {}
    for file in read:
        whole = {name: _with_folders(file, _extend_base(file, name, raw)) for name in file.entries}
        for name, entry in whole.items():
            raw[name], by_name[name] = entry, _model(file, name, entry)
    return by_name


def lineages(read: Sequence[CatalogFile]) -> dict[str, tuple[str, ...]]:
    """Returns by the name of each entry its own name and those of the entries that it extends, the nearest first. The
    files must be those of `models`, which checks that these entries exist.
    """
    by_name: dict[str, tuple[str, ...]] = {}
    for file in read:
        by_name |= {name: _lineage(file, name, by_name) for name in file.entries}
    return by_name


def _lineage(
    file: CatalogFile, name: str, earlier: dict[str, tuple[str, ...]], seen: tuple[str, ...] = ()
) -> tuple[str, ...]:
    base = file.entries[name].get(EXTENDS)
    if base is None:
        return (name,)
    is_here = base != name and base in file.entries and base not in seen
    above = _lineage(file, base, earlier, (*seen, name)) if is_here else earlier[base]
    return tuple(dict.fromkeys((name, *above)))


def loras(read: Sequence[CatalogFile], models: Collection[str]) -> dict[str, CatalogLora]:
    """Returns all LoRAs of the files. If two have the same name, that of the later file counts.

    Raises CatalogError.
    """
    return {name: _lora(file, name, entry, models) for file in read for name, entry in file.loras.items()}


def aliases(read: Sequence[CatalogFile], models: Collection[str]) -> dict[str, AliasTable]:
    """Returns all aliases of the files. If two have the same name, that of the later file counts.

    Raises CatalogError, also for an alias that is the name of a model.
    """
    by_name: dict[str, AliasTable] = {}
    for file in read:
        for name, table in file.aliases.items():
            alias = _validate(file, "aliases", name, table, AliasTable)
            if alias.model not in models:
                known = ", ".join(models)
                raise CatalogError(f"{file.path}: aliases.{name}.model: {alias.model!r} is none of {known}")
            if name in models:
                raise CatalogError(f"{file.path}: aliases.{name}: there is a model of this name")
            by_name[name] = alias
    return by_name


def _lora(file: CatalogFile, name: str, entry: dict[str, Any], models: Collection[str]) -> CatalogLora:
    if isinstance(path := entry.get("path"), str):
        entry = entry | {"path": str((file.path.parent / Path(path).expanduser()).resolve())}
    lora = _validate(file, "loras", name, entry, CatalogLora)
    if lora.base not in models:
        raise CatalogError(f"{file.path}: loras.{name}.base: {lora.base!r} is none of {', '.join(models)}")
    return lora


def _extend_base(
    file: CatalogFile, name: str, earlier: dict[str, dict[str, Any]], seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns the entry with what it takes from the one it extends, key by key: one of this file, or of an earlier one,
    which may be of the entry's own name.
    """
    own = dict(file.entries[name])
    if EXTENDS not in own:
        return own
    base = own.pop(EXTENDS)
    if isinstance(base, str) and base != name and base in file.entries and base not in seen:
        return _merge_tables(_extend_base(file, base, earlier, (*seen, name)), own)
    if base not in earlier:
        raise CatalogError(f"{file.path}: models.{name}.{EXTENDS}: {base!r} is no model that stands before this one")
    return _merge_tables(earlier[base], own)


def _merge_tables(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Returns the base's values with an entry's own. The size of other weights says nothing of those of a new
    repository.
    """
    if "repository" in own:
        base = {key: value for key, value in base.items() if key != "size"}
    return base | own


def _with_folders(file: CatalogFile, entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry with its folders made absolute, as it may be extended from another file.

    What is no folder here is left as it is: a name on the Hugging Face hub.
    """
    changed = dict(entry)
    if isinstance(repository := entry.get("repository"), str):
        folder = file.path.parent / Path(repository).expanduser()
        changed["repository"] = str(folder.resolve()) if folder.is_dir() else repository
    for key in ("denoiser", "vae"):
        if isinstance(weights := entry.get(key), dict):
            changed[key] = _with_folders(file, weights)
    if isinstance(loras := entry.get("lora"), list):
        changed["lora"] = [_with_folders(file, lora) if isinstance(lora, dict) else lora for lora in loras]
    return changed


def _model(file: CatalogFile, name: str, entry: dict[str, Any]) -> Model:
    model = _with_profile(file, name, entry, _validate(file, "models", name, entry, Model))
    for key, source in model.sources.items():
        if source.revision != "main" and Path(source.repository).is_dir():
            field = ".".join(filter(None, ("models", name, key, "revision")))
            raise CatalogError(f"{file.path}: {field}: a folder has none (value: {source.revision!r})")
    return model


def _with_profile(file: CatalogFile, name: str, entry: dict[str, Any], model: Model) -> Model:
    """Returns the model with the settings by which it fits the device of its profile."""
    if model.profile is None:
        return model
    key = f"{file.path}: models.{name}.profile"
    if model.size is None:
        raise CatalogError(f"{key}: needs the entry's size (value: {model.profile!r})")
    changes = fitting_changes(model, int(model.profile[:-2]), recorded_footprint, frozenset(entry))
    if changes is None:
        raise CatalogError(f"{key}: the weights fit by none of the settings that are tried (value: {model.profile!r})")
    return _validate(file, "models", name, entry | changes, Model)


def _validate(file: CatalogFile, table: str, name: str, entry: dict[str, Any], kind: type[EntryT]) -> EntryT:
    try:
        return kind.model_validate({**entry, "id": name})
    except ValidationError as exc:
        first: ErrorDetails = exc.errors(include_url=False, include_context=False)[0]
        key = ".".join([table, name, *map(str, first["loc"])])
        # Of a missing key, or keys that disagree, the "value" is the whole table around them: no help, and long.
        value = "" if isinstance(first["input"], dict) else f" (value: {first['input']!r})"
        raise CatalogError(f"{file.path}: {key}: {first['msg']}{value}") from exc
