"""Times of module calls, as they are taken without a device to wait for."""

from __future__ import annotations

import pytest

from app.worker.devices.pace import Pace
from tests.worker.generate import CPU


def test_each_block_is_timed_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, taken_s = iter([10.0, 12.5, 20.0, 21.0]), list[float]()
    monkeypatch.setattr("app.worker.devices.pace.perf_counter", lambda: next(clock))
    pace = Pace(CPU)
    for before in ([], [2.5]):
        with pace.timed(taken_s.append):
            assert taken_s == before
    assert taken_s == [2.5, 1.0]


def test_a_block_that_raises_has_no_time() -> None:
    taken_s: list[float] = []
    with pytest.raises(ValueError, match="no"), Pace(CPU).timed(taken_s.append):
        raise ValueError("no")
    assert taken_s == []
