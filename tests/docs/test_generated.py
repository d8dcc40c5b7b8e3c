"""The generated tables of the documentation are what the code says, and name what a reader looks for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

import nag
from app.catalog import Catalog
from app.metrics.definitions import ALL
from app.settings import Settings
from docs.http_reference import http_reference
from docs.reference import DOCS, PAGES, rendered

ROOT = DOCS.parent


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_tables_that_the_code_makes(name: str) -> None:
    assert (DOCS / name).read_text() == rendered(name), "make reference"


def names(page: str, pattern: str) -> Any:
    return re.findall(rf"^\| `({pattern})` \|", (DOCS / page).read_text(), re.MULTILINE)


def test_every_setting_is_on_its_page_once() -> None:
    assert sorted(names("server/settings.md", r"NAG_\w+")) == sorted(
        f"NAG_{name.upper()}" for name in Settings.model_fields
    )


def test_every_metric_is_on_its_page_once() -> None:
    assert sorted(names("operations/metrics.md", r"nag_\w+")) == sorted(metric.name for metric in ALL)


def test_every_known_model_is_on_its_page() -> None:
    models = names("server/models.md", r"[\w.-]+")
    assert models == list(Catalog.known(Settings()))
    assert len(models) > 34  # four embedded ones, and the README says more than 30 others


def test_every_family_is_on_its_page() -> None:
    page = (DOCS / "library/families.md").read_text()
    families = list(nag.families())
    assert [family.name for family in families if f"\n| {family.name} | " not in page] == []
    assert len([family for family in families if family.refused is None]) > 60  # as the README says


def test_every_alert_is_in_the_runbook() -> None:
    groups = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    assert names("operations/runbook.md", r"Nag\w+") == alerts


def test_every_route_and_field_is_in_the_http_reference() -> None:
    openapi = json.loads((ROOT / "app/api/openapi/openapi.json").read_text())
    text = http_reference(openapi)
    for path, operations in openapi["paths"].items():
        for method in operations:
            assert f"### {method.upper()} {path}\n" in text
    for name, schema in openapi["components"]["schemas"].items():
        section = text.split(f"\n### {name}\n")[1].split("\n### ")[0]
        assert [field for field in schema.get("properties", ()) if f"\n| `{field}`" not in section] == []
