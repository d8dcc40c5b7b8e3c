from __future__ import annotations

from typing import Any

import pytest

from app.catalog import Catalog, CatalogError
from app.settings import Settings
from app.worker.models.served_models import ServedModels


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog.load(Settings())
    entry = catalog.models["shapes-flux"]
    models = {name: entry.model_copy(update={"id": name}) for name in ("a", "b", "c")}
    return Catalog.model_construct(default="b", models=models)


@pytest.mark.parametrize(
    ("settings", "warm", "required"),
    [
        ({}, "bac", "b"),
        ({"warm": ""}, "bac", "b"),
        ({"warm": "c, b"}, "cb", "bc"),
        ({"warm": "none"}, "", ""),
    ],
)
def test_the_settings_choose(catalog: Catalog, settings: dict[str, Any], warm: str, required: str) -> None:
    chosen = ServedModels.chosen(catalog, Settings(**settings))
    assert (chosen.served, chosen.warm, chosen.required) == (tuple("bac"), tuple(warm), frozenset(required))


def test_an_entry_may_wait_until_it_is_asked_for(catalog: Catalog) -> None:
    for name in "bc":
        catalog.models[name] = catalog.models[name].model_copy(update={"warm": False})
    chosen = ServedModels.chosen(catalog, Settings())
    assert (chosen.served, chosen.warm, chosen.required) == (tuple("bac"), tuple("ba"), frozenset("b"))
    assert ServedModels.chosen(catalog, Settings(warm="c")).warm == ("c",)  # type: ignore[arg-type]


def test_a_name_that_is_no_model_is_told(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="NAG_WARM: 'd'"):
        ServedModels.chosen(catalog, Settings(warm="a,d"))  # type: ignore[arg-type]
