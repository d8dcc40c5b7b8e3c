from __future__ import annotations

import math

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
    names = ("layerwise-fp8, transformer", "offload = model")
    changes = settings.chosen("shapes-flux", names, is_compiled=False)
    rows = settings.rows_of(KNOWN["shapes-flux"], CPU, changes, 1, math.inf)
    assert [(row["nag"], row["steps"]) for row in rows] == [(False, 4), (True, 4)] * 2
    cast, offloaded = rows[:2], rows[2:]
    for row in cast:
        assert 0.01 < row["mean"] < 30
        assert 0.2 < row["weights_ratio"] < 0.9
        assert row["device_ratio"] == pytest.approx(row["weights_ratio"], rel=0.1)
    for row in offloaded:
        assert row["largest"] < 0.1
        assert row["weights_ratio"] == 1
        assert 0.2 < row["device_ratio"] < 0.9


def test_settings_for_which_no_time_is_left_are_named() -> None:
    changes = settings.chosen("shapes-flux", (), is_compiled=True)
    rows = settings.rows_of(KNOWN["shapes-flux"], CPU, changes, 1, 0.0)
    assert [(row["setting"], row["refused"]) for row in rows] == [
        (f"compile = {what}", "no time left (--minutes)") for what in ("blocks", "denoiser")
    ]
