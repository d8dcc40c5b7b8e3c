from __future__ import annotations

import pytest

from app.catalog import Catalog
from app.settings import Settings
from benchmarks import settings
from tests.worker.generate import CPU

pytestmark = pytest.mark.slow  # runs a benchmark

KNOWN = Catalog.known(Settings())


def test_everything_in_the_table_of_refusals_is_refused_with_a_reason() -> None:
    rows = settings.refusals(KNOWN, CPU)
    assert len(rows) == len(settings.REFUSED)
    assert [row for row in rows if not row["where"] or not row["why"]] == []
    assert {row["where"] for row in rows} == {"catalog", "models check", "load"}


def test_a_setting_is_measured_against_the_plain_model_with_and_without_guidance() -> None:
    rows = settings.rows_of(KNOWN["shapes-flux"], CPU, 1, ["layerwise-fp8, transformer", "offload = model"])
    assert [(row["nag"], row["steps"]) for row in rows] == [(False, 4), (True, 4)] * 2
    cast, offloaded = rows[:2], rows[2:]
    for row in cast:
        assert 0.01 < row["mean"] < 30
        assert 0.2 < row["weights_ratio"] < 0.9
    for row in offloaded:
        assert row["largest"] < 0.1
        assert row["weights_ratio"] == 1
