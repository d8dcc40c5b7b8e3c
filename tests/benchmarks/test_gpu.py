"""The script for a GPU, tried small on a CPU: every part runs, and one that fails or hangs keeps none of the others."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import denoisers
from benchmarks.gpu import __main__ as gpu
from tests.benchmarks.test_nag_cost import small_flux

pytestmark = pytest.mark.slow  # runs benchmarks

STORED = {
    "kernels", "nag_cost-flux-cpu", "nag_cost-sd3-cpu", "nag_cost-wan-cpu", "steps-joined", "memory", "overlap",
    "steps-attention", "steps-quantization", "steps-compile", "settings",
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_denoisers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Denoisers of true width take minutes on a CPU."""
    for name in gpu.COSTED:
        monkeypatch.setitem(denoisers.MAKERS, name, small_flux)
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.mark.parametrize("number", range(len(gpu.parts_of("cpu", Path(), small=True))))
def test_every_part_runs_small_and_stores_its_table(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has the libraries already."""
    module, *words = gpu.parts_of("cpu", folder, small=True)[number].words
    monkeypatch.setattr(sys, "argv", [module, *words])
    before = set(folder.glob("*.md"))
    importlib.import_module(module).main()
    (table,) = set(folder.glob("*.md")) - before
    assert table.stem in STORED
    data = json.loads(table.with_suffix(".json").read_text())["data"]
    if table.stem == "kernels":
        assert data
        assert all(merged < 2 * own + 1e-6 for merged, own in (row["errors"] for row in data))
    if table.stem == "memory":
        assert all(abs(row["measured"] / row["computed"] - 1) < 0.1 for row in data)


def test_a_part_that_fails_or_hangs_is_said_and_the_others_go_on() -> None:
    parts = [
        gpu.Part("unknown", ("benchmarks.gpu.nothing",), 60),
        gpu.Part("hangs", ("http.server", "--bind", "127.0.0.1", "0"), 1),
        gpu.Part("runs", ("this",), 60),
    ]
    assert [row[:2] for row in gpu.run(parts)] == [
        ("unknown", "failed with code 1"), ("hangs", "ended after its 1 s"), ("runs", "done"),
    ]  # fmt: skip
    assert [row[1] for row in gpu.run(parts, total_s=0)] == ["not begun: no time was left"] * 3


def test_the_limits_of_the_parts_are_near_ten_minutes(tmp_path: Path) -> None:
    """The total bounds them in any case; a part should seldom be cut short for another."""
    assert sum(part.limit_s for part in gpu.parts_of("cuda", tmp_path, small=False)) < 1.25 * gpu.TOTAL_S
