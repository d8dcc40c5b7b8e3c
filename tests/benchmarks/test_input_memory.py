"""The benchmark of large input files, in short: a video is never held whole, neither in the API nor in a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edit_memory import MB
from benchmarks.input_memory import measure, service, video

pytestmark = pytest.mark.slow  # runs a benchmark


def test_a_video_stays_on_the_disk(tmp_path: Path) -> None:
    with service(tmp_path, NAG_MODELS="changing") as (client, processes):
        measure("warm-up", video(10 * MB), {"model": "changing"}, "video", client, processes)
        readings = measure("video", video(190 * MB), {"model": "changing"}, "video", client, processes)
        refused = measure("video", video(201 * MB), {"model": "changing"}, "video", client, processes)
    assert [reading.answer for reading in readings] == ["processed", "completed"]
    for reading in (*readings, *refused):
        for before, peak in (reading.api_bytes, reading.worker_bytes):
            assert peak - before < 150 * MB, reading
    assert "200000000 bytes" in refused[0].answer
