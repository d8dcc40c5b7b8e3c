"""The models that a worker serves, and those that it loads before the first request."""

from __future__ import annotations

from dataclasses import dataclass

from app.catalog import Catalog, CatalogError
from app.settings import Settings

__all__ = ["ServedModels"]

NONE = ("none",)


@dataclass(frozen=True)
class ServedModels:
    """`served` are claimed, loaded on first need; `warm` are loaded at the start, in this order, if they fit, those
    of `required` whether they fit or not.
    """

    served: tuple[str, ...]
    warm: tuple[str, ...]
    required: frozenset[str]

    @classmethod
    def chosen(cls, catalog: Catalog, settings: Settings) -> ServedModels:
        """Returns the models that the settings name; the catalog's default goes first. Raises CatalogError for a name
        that is no model.
        """
        served = (catalog.default, *(model for model in catalog.models if model != catalog.default))
        if settings.warm is None:
            warm = tuple(model for model in served if model == catalog.default or catalog.models[model].warm)
            return cls(served, warm, frozenset(served[:1]))
        if settings.warm == NONE:
            return cls(served, (), frozenset())
        for name in settings.warm:
            if name not in served:
                raise CatalogError(f"NAG_WARM: {name!r} is none of {', '.join(served)}")
        return cls(served, settings.warm, frozenset(settings.warm))
