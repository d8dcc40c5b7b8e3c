"""The load of the benchmark of joining: what it draws, what it counts, and what it writes."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, stdev

import httpx
import pytest

from app.api.requests.generation import JobBody
from app.api.resolver import resolve
from app.catalog import Catalog
from app.settings import Settings
from benchmarks.joining.__main__ import AFTER, ALONE, BEFORE, Cell, write
from benchmarks.joining.load import Reading, RequestFailed, closed_loop, one_by_one, open_loop
from benchmarks.joining.mixes import MIXES, arrivals


@pytest.mark.parametrize("mix", MIXES)
def test_both_services_get_the_same_valid_requests(mix: str) -> None:
    bodies = list(islice(MIXES[mix].requests(3), 300))
    assert bodies == list(islice(MIXES[mix].requests(3), 300))
    catalog = Catalog.load(Settings())
    generations = [resolve(JobBody(**body), catalog).request for body in bodies]
    kinds = Counter(catalog.models[generation.model].kind for generation in generations)
    assert (kinds["video"] > 0) == (mix == "c")
    steps = {generation.num_inference_steps for generation in generations}
    assert (min(steps), max(steps)) == ((4, 4) if mix == "a" else (2, 50))
    guidance = {(generation.cfg, generation.nag is not None) for generation in generations}
    assert len(guidance) == (1 if mix == "a" else 4)


def test_arrivals_are_those_of_a_poisson_process() -> None:
    times_s = arrivals(50.0, 40.0, seed=1)
    assert times_s == arrivals(50.0, 40.0, seed=1)
    assert len(times_s) == 2000
    assert times_s[0] > 0.0
    assert times_s[-1] < 40.0
    gaps_s = [after - before for before, after in pairwise(times_s)]
    assert min(gaps_s) >= 0.0
    assert 0.9 < stdev(gaps_s) / mean(gaps_s) < 1.1  # that of an exponential distribution is 1


async def test_every_request_of_a_service_is_counted(service: str) -> None:
    reading = await open_loop(service, MIXES["a"].requests(0), [0.0, 0.01, 0.02], drain_s=100.0)
    assert reading.ends == {"completed": 3}
    assert 0 < reading.median_s <= reading.p95_s <= reading.lasted_s
    assert await closed_loop(service, MIXES["a"].requests(0), clients=2, seconds=0.5) > 0
    broken = await open_loop(service, [{"model": "shapes-flux", "prompt": "a", "seed": -1}], [0.0], drain_s=100.0)
    assert [end[:3] for end in broken.ends] == ["422"]
    with pytest.raises(RequestFailed, match="422"):
        await closed_loop(service, iter([{"prompt": 1}]), clients=1, seconds=5.0)


async def test_requests_one_by_one_are_never_in_flight_together(service: str) -> None:
    bodies = [{"model": "shapes-flux", "prompt": "a shape", "num_inference_steps": steps} for steps in (1, 2)]
    reading = await one_by_one(service, bodies)
    assert reading.ends == {"completed": 2}
    assert sum(reading.latencies_s) <= reading.lasted_s


async def test_a_request_cut_off_counts_with_its_wait_and_is_cancelled(service: str) -> None:
    bodies = [{"model": "shapes-flux", "prompt": "a shape", "num_inference_steps": 50}] * 12
    reading = await open_loop(service, bodies, [0.0] * len(bodies), drain_s=0.5)
    assert reading.ends["unfinished"] > 0
    assert reading.ends.total() == len(reading.latencies_s) == len(bodies)
    assert reading.p95_s >= 0.4
    async with httpx.AsyncClient(base_url=service, trust_env=False) as http:
        for status in ("queued", "in_progress"):
            assert (await http.get("/v1/jobs", params={"status": status})).json()["data"] == []


def test_the_table_has_both_versions_and_their_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Reading(Counter(completed=2), [1.0, 4.0], 4.0)
    after = Reading(Counter(completed=1, unfinished=1), [0.5, 1.0], 2.0)
    alone = Reading(Counter(completed=2), [0.4, 0.8], 1.2)
    write(
        "joining",
        "title",
        [Cell("b", 0.8, 1.0, {BEFORE: before, AFTER: after, ALONE: alone})],
        [["f", "2.00", "1.00", "0.50", ""]],
        {},
        tmp_path,
    )
    assert capsys.readouterr().out == (tmp_path / "joining.md").read_text()
    table = (tmp_path / "joining.md").read_text()
    row = "| (b) 2 to 50 steps | 80% | 2 | 1.00 | 0.50 | 0.50 | 0.40 | 4.00 | 1.00 | 0.25 | 0.80 | 0.50 | 0.50 | 1.00 |"
    assert row in table
    assert "| f | 2.00 | 1.00 | 0.50 |" in table
    assert "1 requests were cut off" in table
    assert json.loads((tmp_path / "joining.json").read_text())["data"]["cells"][0]["after"]["p95_s"] == 1.0
