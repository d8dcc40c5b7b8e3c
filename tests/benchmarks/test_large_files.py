"""A short form: what is held of a file does not grow with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.large_files import MIB, measure

pytestmark = pytest.mark.slow  # runs a benchmark


def test_no_file_is_held_whole(tmp_path: Path) -> None:
    read = measure(384 * MIB, tmp_path, None)
    before, most = read.writer_mib
    assert most - before < 200
    before, most = read.api_mib
    assert most - before < 64
