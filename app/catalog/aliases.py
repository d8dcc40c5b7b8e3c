"""Other names of models, by default the names that popular clients have built in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from app.catalog.entry import Kind, Model
from app.catalog.errors import CatalogError
from app.catalog.table import CatalogTable

__all__ = ["DEFAULT_ALIASES", "OFF", "Alias", "aliases"]

ResponseFormat = Literal["b64_json", "url"]

#: The value of NAG_ALIASES for no alias at all.
OFF = "none"
#: Names of OpenAI's models, and the kind of model that answers to each.
DEFAULT_ALIASES: dict[str, Kind] = {
    "gpt-image-1": "image",
    "gpt-image-1-mini": "image",
    "gpt-image-1.5": "image",
    "gpt-image-2": "image",
    "dall-e-2": "image",
    "dall-e-3": "image",
    "sora-2": "video",
    "sora-2-pro": "video",
}
#: By the beginning of an alias: how OpenAI answers with images if a request does not say it.
ANSWERS: dict[str, ResponseFormat] = {"dall-e-": "url", "gpt-image-": "b64_json"}


class AliasTable(CatalogTable):
    """A table `[aliases.<name>]` of a catalog's file.

    model: the model's id. negative_prompt: of requests that bring none. response_format: of requests that do not
    choose; absent, that of OpenAI's models whose names begin alike, else the service's.
    """

    id: str = Field(min_length=1, max_length=128)
    model: str
    negative_prompt: str | None = Field(default=None, min_length=1)
    response_format: ResponseFormat | None = None


class Alias(AliasTable):
    """Another name of a served model. A request under it is lenient, unless it says otherwise.

    is_open: another model of the kind may take a request whose files `model` does not take, as if the request named no
    model.
    """

    kind: Kind
    is_open: bool = False


def aliases(
    names: Mapping[str, str | None] | None, tables: Mapping[str, AliasTable], served: Mapping[str, Model], default: str
) -> dict[str, Alias]:
    """Returns the aliases of the served models, by name; an id of a model goes before an alias of this name.

    names: those of NAG_ALIASES, each with its model's id or None for the default of images; None: the built-in names.
    tables: those of the catalog's files; such a table of a built-in name that has its model's kind replaces it.
    Raises CatalogError for a name of NAG_ALIASES whose model is not served.
    """
    by_name: dict[str, Alias] = {}
    if names is None:
        for name, kind in DEFAULT_ALIASES.items():
            if (model := first_of(kind, served, default)) is not None:
                by_name[name] = _alias(name, model, is_open=True)
    for name, model_id in (names or {}).items():
        model = served.get(model_id) if model_id is not None else first_of(_kind(name), served, default)
        if model is None:
            problem = f"no model {model_id!r} is served" if model_id else f"no served model makes {_kind(name)}s"
            raise CatalogError(f"NAG_ALIASES: {name}: {problem}; served are {', '.join(served)}")
        by_name[name] = _alias(name, model, is_open=model_id is None)
    for name, table in tables.items():
        if table.model in served:
            by_name[name] = _alias(name, served[table.model], table)
    return {name: alias for name, alias in by_name.items() if name not in served}


def first_of(kind: Kind | None, served: Mapping[str, Model], default: str) -> Model | None:
    """Returns the default model, or the first of this kind if the default is of the other; None if there is none."""
    ordered = (served[default], *served.values())
    return next((model for model in ordered if kind in (None, model.kind)), None)


def _kind(name: str) -> Kind:
    return DEFAULT_ALIASES.get(name, "image")


def _alias(name: str, model: Model, table: AliasTable | None = None, *, is_open: bool = False) -> Alias:
    by_name = next((answer for beginning, answer in ANSWERS.items() if name.startswith(beginning)), None)
    return Alias(
        id=name,
        model=model.id,
        kind=model.kind,
        is_open=is_open,
        negative_prompt=table.negative_prompt if table else None,
        response_format=(table.response_format if table else None) or by_name,
    )
