"""The benchmark of waiting edits, in short: what was decoded is not held while they wait."""

from __future__ import annotations

import pytest

from benchmarks.edit_memory import MB, masked_canvas, measure

pytestmark = pytest.mark.slow  # runs a benchmark


async def test_waiting_edits_hold_no_pixels() -> None:
    """One image of 16 megapixels is 67 MB, and each of these has two."""
    reading = await measure(4, masked_canvas())
    assert reading.peak_bytes - reading.idle_bytes < 300 * MB
