from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import build
import check_schema
import panels
from app.metrics.definitions import ALL, Kind

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".grafana-schema"
RULES = "".join((ROOT / "docker" / "prometheus" / name).read_text() for name in ("recording.yml", "alerts.yml"))
QUERIES = [query.expr for each in panels.DASHBOARDS.values() for panel in each for query in panel.queries]


@pytest.mark.parametrize("name", panels.DASHBOARDS)
def test_the_dashboard_is_what_the_script_builds(name: str) -> None:
    assert (build.FOLDER / f"{name}.json").read_text() == build.text(name), "run python docker/grafana/build.py"


def test_no_other_dashboard_lies_there() -> None:
    assert {file.stem for file in build.FOLDER.iterdir()} == panels.DASHBOARDS.keys()


@pytest.mark.parametrize("text", [*QUERIES, RULES])
def test_queries_ask_for_what_is_measured(text: str) -> None:
    shown = {
        metric.name + suffix
        for metric in ALL
        for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    text = re.sub(r"#.*|^\s+(summary|runbook):.*", "", text, flags=re.MULTILINE)
    asked = set(re.findall(r"\bnag_\w+", text))
    assert asked <= shown
    recorded = set(re.findall(r"record: (nag:\w+:?\w*)", RULES))
    assert set(re.findall(r"\bnag:\w+:?\w*", text)) <= recorded


def test_every_metric_is_looked_at() -> None:
    text = " ".join([*QUERIES, RULES])
    assert [metric.name for metric in ALL if metric.name not in text] == []


def test_panels_do_not_lie_on_each_other() -> None:
    for name in panels.DASHBOARDS:
        places = [panel["gridPos"] for panel in json.loads(build.text(name))["panels"]]
        assert len({(place["x"], place["y"]) for place in places}) == len(places)


@pytest.mark.skipif(not FETCHED.is_dir(), reason="fetches npm packages first: python docker/grafana/check_schema.py")
def test_the_dashboards_fit_grafana_s_types() -> None:
    assert list(check_schema.mistakes(FETCHED)) == []
