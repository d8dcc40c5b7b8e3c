from __future__ import annotations

import logging

import pytest

from app.queue.registry import ModelState
from app.worker.models import model_states as module
from app.worker.models.model_states import ModelStates


def test_progress_is_announced_once_a_second_and_logged_every_ten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    announced: list[ModelState] = []
    model_states = ModelStates()
    model_states.on_change = lambda: announced.append(model_states.snapshot()["a"])
    model_states.set("a", "downloading")
    for quarter in range(1, 45):  # 11 seconds
        clock[0] += 0.25
        model_states.progress("a", "downloading", quarter, 100)
    assert len(announced) == 12  # the begin, the first progress, one a second
    assert announced[1] == ModelState("downloading", 1, 100)
    (line,) = caplog.messages
    assert line == "model_downloading model=a done_bytes=40 total_bytes=100 percent=40"
    model_states.set("a", "failed", "no such repository")
    assert announced[-1] == model_states.snapshot()["a"] == ModelState("failed", error="no such repository")
