"""The benchmark of listeners, in short: two hundred at once, and nobody misses anything."""

from __future__ import annotations

import pytest

from app.settings import Settings
from benchmarks.listeners import api, listen

pytestmark = pytest.mark.slow  # runs a benchmark


async def test_two_hundred_listeners_on_one_api_process_hear_everything(settings: Settings) -> None:
    async with api(settings) as (port, process):
        heard = await listen(settings, port, process, listeners=200, jobs=3, steps=4, step_s=0.0)
    assert heard.wrong == 0
    assert heard.events == 200 * (4 + 3)
    assert len(heard.delays_ms) == 200 * 4
