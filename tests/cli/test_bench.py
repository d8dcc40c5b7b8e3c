"""`bench` against an API on a real socket with a scripted worker."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import _parser
from app.cli.bench import bench, percentile
from app.cli.client import ClientError
from app.settings import Settings
from tests.api.support import FakeWorker


async def ran(api: httpx.AsyncClient, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = _parser().parse_args(["bench", str(api.base_url), "--json", str(file), *arguments])

    def run() -> tuple[int, dict[str, Any]]:
        return bench(command, Settings()), json.loads(file.read_text())

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("loop", [("--clients", "3"), ("--rate", "200")])
async def test_as_many_requests_as_asked_for_and_their_latencies(
    api: httpx.AsyncClient,
    worker: FakeWorker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    loop: tuple[str, ...],
) -> None:
    code, numbers = await ran(api, tmp_path / "n.json", "--requests", "12", *loop)
    assert (code, numbers["ends"]) == (0, {"completed": 12})
    assert sorted(asked.seed for asked in worker.seen) == list(range(12))
    seconds = numbers["seconds"]
    assert seconds["denoise"]["p50"] == 0.03  # as the scripted worker says of each
    assert 0 < seconds["request"]["p50"] <= seconds["request"]["p99"] <= seconds["request"]["p100"]
    assert numbers["completed_per_s"] == pytest.approx(12 / numbers["lasted_s"])
    said = capsys.readouterr().out
    assert "12 completed" in said
    assert "denoise" in said


async def test_what_did_not_complete_is_counted_by_its_reason(
    api: httpx.AsyncClient, worker: FakeWorker, tmp_path: Path
) -> None:
    assert await ran_ends(ran(api, tmp_path / "a", "--requests", "2", "--prompt", "fail")) == (
        1, {"failed out_of_memory": 2},
    )  # fmt: skip
    assert await ran_ends(ran(api, tmp_path / "b", "--requests", "1", "--model", "none")) == (
        1, {"400 model_not_found": 1},
    )  # fmt: skip


async def ran_ends(run: Awaitable[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]]:
    code, numbers = await run
    return code, numbers["ends"]


async def test_it_ends_at_its_limit(api: httpx.AsyncClient, tmp_path: Path) -> None:
    code, numbers = await ran(api, tmp_path / "n", "--requests", "1000", "--clients", "2", "--limit-s", "0.3")
    assert code == 1
    assert numbers["ends"] == {"not done in time": 2}


def test_without_a_server_it_says_so() -> None:
    command = _parser().parse_args(["bench", "http://127.0.0.1:1"])
    with pytest.raises(ClientError, match="no server at http"):
        bench(command, Settings())


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(each) for each in range(100, 0, -1)]
    assert [percentile(values, each) for each in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 50) == 3


@pytest.mark.parametrize("wrong", [("--requests", "0"), ("--rate", "nan"), ("--rate", "-1"), ("--limit-s", "0")])
def test_loads_without_a_bound_are_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, argparse.ArgumentTypeError)):
        _parser().parse_args(["bench", "http://127.0.0.1", *wrong])
    assert "must be" in capsys.readouterr().err
