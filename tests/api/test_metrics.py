"""`/metrics` of an API on a real socket, counted by a real Valkey."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.api.server import create_app
from app.jobs import Job, JobError
from app.metrics.definitions import ALL, HTTP_TIME, LATENCY_S, STAGE
from app.queue.queue import Queue
from app.settings import Settings
from tests.api.support import FakeWorker, serving
from tests.claiming import claim
from tests.metrics_text import read, series

Make = Callable[..., Job]
Connect = Callable[..., Queue]
MODEL = "shapes-flux"


async def test_a_finished_job_is_counted_once_however_often_it_is_seen(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    job = (await api.post("/v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=10"})).json()
    for _ in range(3):
        await api.get(f"/v1/jobs/{job['id']}")
    await api.post("/v1/jobs", json={"prompt": "fail"}, headers={"prefer": "wait=10"})
    said = await read(api)
    assert said["nag_jobs_accepted_total", MODEL, "normal"] == 2
    assert said["nag_jobs_total", MODEL, "completed"] == 1
    assert said["nag_jobs_total", MODEL, "failed"] == said["nag_job_errors_total", "out_of_memory", MODEL] == 1
    assert said["nag_e2e_request_latency_seconds_count", MODEL] == 1
    assert said["nag_e2e_request_latency_seconds_sum", MODEL] == 0.04
    assert said["nag_request_denoise_time_seconds_sum", MODEL] == 0.03
    buckets = [said["nag_request_denoise_time_seconds_bucket", str(most), MODEL] for most in LATENCY_S]
    assert buckets == [0.0 if most < 0.03 else 1.0 for most in LATENCY_S]
    assert said["nag_guidance_total", "false", MODEL, "not_requested"] == 1
    assert (said["nag_workers_alive",], said["nag_warm_workers", MODEL]) == (1, 1)


async def test_a_job_is_counted_whichever_api_took_it_in(settings: Settings, queue: Queue) -> None:
    async with serving(settings) as first:
        for _ in range(3):
            await first.post("/v1/jobs", json={"prompt": "a"})
    jobs = await claim(queue, "w", MODEL, 8, 1)
    for job in jobs:
        assert await queue.fail("w", job.id, JobError("nan_output", "no numbers"))
        assert not await queue.fail("w", job.id, JobError("nan_output", "no numbers"))
    async with serving(settings) as second, serving(settings) as third:
        for api in (second, third):
            said = await read(api)
            assert said["nag_jobs_total", MODEL, "failed"] == said["nag_job_errors_total", "nan_output", MODEL] == 3
            assert said["nag_jobs_accepted_total", MODEL, "normal"] == 3


async def test_each_way_a_job_can_end_is_counted(settings: Settings, make_job: Make, connect: Connect) -> None:
    hasty = settings.model_copy(update={"lease_s": 0.05, "max_attempts": 2, "queue_limit_per_model": 4})
    queue = connect(hasty)
    async with serving(hasty) as api:
        for name in "abc":
            await queue.submit(make_job(name), deadline_s=0.01 if name == "c" else None)
        assert await queue.cancel("a") is not None
        assert await queue.cancel("a") is not None
        await until(queue.maintenance.expire)
        for _ in range(2):
            assert [job.id for job in await claim(queue, "w", MODEL, 8, 1)] == ["b"]
            await until(queue.maintenance.reap)
        for _ in range(5):
            await api.post("/v1/jobs", json={"prompt": "a", "priority": "high"})
        said = await read(api)
    ends = {name[-1]: value for name, value in said.items() if name[:2] == ("nag_jobs_total", MODEL)}
    assert ends == {"completed": 0, "cancelled": 1, "expired": 1, "failed": 1}
    codes = {name[1]: value for name, value in said.items() if name[0] == "nag_job_errors_total"}
    assert codes == {"deadline_exceeded": 1, "worker_lost": 1}
    assert (said["nag_leases_lost_total", MODEL], said["nag_job_retries_total", MODEL]) == (2, 1)
    assert (said["nag_dead_letters_total", MODEL], said["nag_dead_letters",]) == (1, 1)
    assert said["nag_jobs_refused_total", "model", MODEL] == 1
    assert said["nag_jobs_accepted_total", MODEL, "high"] == 4


async def until(act: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await act():  # noqa: ASYNC110 - the clock that is waited for is Redis'
            await asyncio.sleep(0.01)


async def test_what_waits_and_what_is_held_is_shown(api: httpx.AsyncClient, queue: Queue) -> None:
    said = await read(api)
    assert said["nag_queue_depth", MODEL, "low"] == 0  # of a model nobody has asked for yet
    for steps in (2, 3):
        await api.post("/v1/jobs", json={"prompt": "a", "priority": "low", "num_inference_steps": steps})
    await api.post("/v1/jobs", json={"prompt": "a", "priority": "high"})
    await asyncio.sleep(0.01)
    said = await read(api)
    assert [said["nag_queue_depth", MODEL, each] for each in ("high", "normal", "low")] == [1, 0, 2]
    assert said["nag_queue_oldest_seconds", MODEL, "low"] >= said["nag_queue_oldest_seconds", MODEL, "high"] > 0
    assert len(await claim(queue, "w", MODEL, 1, 1)) == 1
    said = await read(api)
    assert (said["nag_queue_depth", MODEL, "high"], said["nag_jobs_running", MODEL]) == (0, 1)
    assert said["nag_queue_oldest_seconds", MODEL, "high"] == 0


async def test_answers_are_counted_by_the_template_of_their_route(api: httpx.AsyncClient) -> None:
    for each in ("job_1", "job_2"):
        await api.get(f"/v1/jobs/{each}")
        await api.get(f"/nowhere/{each}")
    await api.request("BREW", "/healthz")
    await api.post("/v1/jobs", json={})
    said = await read(api)
    assert said["nag_http_requests_total", "GET", "/v1/jobs/{job_id}", "404"] == 2
    assert said["nag_http_requests_total", "GET", "other", "404"] == 2
    assert said["nag_http_requests_total", "POST", "/v1/jobs", "422"] == 1
    assert not [name for name in said if "job_1" in str(name) or "BREW" in name]
    assert said["nag_disk_free_bytes", "artifacts"] <= said["nag_disk_size_bytes", "artifacts"]


async def test_each_folder_s_disk_is_shown(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifacts lie on another disk than the data folder."""
    elsewhere = tmp_path / "elsewhere"
    usages = {settings.data_folder: SimpleNamespace(total=100, free=60), elsewhere: SimpleNamespace(total=90, free=5)}
    monkeypatch.setattr("app.metrics.api.shutil.disk_usage", usages.__getitem__)
    async with serving(settings.model_copy(update={"artifacts_url": f"file://{elsewhere}"})) as api:
        said = await read(api)
    found = {name: value for name, value in said.items() if name[0].startswith("nag_disk")}
    assert found == {
        ("nag_disk_free_bytes", "data"): 60,
        ("nag_disk_size_bytes", "data"): 100,
        ("nag_disk_free_bytes", "artifacts"): 5,
        ("nag_disk_size_bytes", "artifacts"): 90,
    }


def test_brief_stages_and_answers_are_told_apart() -> None:
    for metric in (STAGE, HTTP_TIME):
        assert len([limit for limit in metric.buckets if limit < 0.01]) >= 4, metric.name


async def test_every_metric_declared_for_an_api_is_shown(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    await api.post("/v1/jobs", json={"prompt": "a"}, headers={"prefer": "wait=10"})
    text = (await api.get("/metrics")).text
    missing = [m.name for m in ALL if m.source != "worker" and f"# HELP {m.name}" not in text]
    assert missing == []


async def test_prometheus_finds_the_workers_that_are_alive(api: httpx.AsyncClient, queue: Queue) -> None:
    assert (await api.get("/metrics/workers")).json() == []
    await queue.registry.announce("a", [], 60, metrics="127.0.0.1:9400")
    await queue.registry.announce("b", [], 60, metrics="127.0.0.1:9401")
    await queue.registry.announce("of an older release", [], 60)
    found = (await api.get("/metrics/workers")).json()
    assert [each["targets"] for each in found] == [["127.0.0.1:9400"], ["127.0.0.1:9401"]]
    await queue.registry.retire("a")
    assert [each["targets"] for each in (await api.get("/metrics/workers")).json()] == [["127.0.0.1:9401"]]


@pytest.mark.slow
async def test_the_series_stay_as_many_through_2000_varied_requests(
    api: httpx.AsyncClient, worker: FakeWorker, queue: Queue
) -> None:
    """Each wave asks for everything that makes a label, and for texts, seeds and ids nobody has seen."""
    count = 2000
    await read(api)  # being read is a request too
    before: set[tuple[str, ...]] = set()
    limit = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with limit:
            await _varied(api, number)

    for wave in range(2):
        numbers = range(100) if wave == 0 else range(100, 100 + count)
        await asyncio.gather(*map(one, numbers))
        async with asyncio.timeout(60):
            while any(each.queued or each.held_work for each in await queue.loads()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        said = await read(api)
        if wave == 0:
            before = series(said)
    print(f"series: {len(before)} after 100 requests, {len(series(said))} after {count} more")
    assert sorted(series(said) ^ before)[:3] == []
    assert sum(value for name, value in said.items() if name[0] == "nag_jobs_total") > count / 2


async def _varied(api: httpx.AsyncClient, number: int) -> None:
    drawn = random.Random(number)
    word = f"{drawn.random()}"
    match number % 10:
        case 0:
            await api.get(f"/v1/jobs/{word}")
        case 1:
            await api.get(f"/{word}/{number}", params={"q": word})
        case 2:
            await api.post("/v1/jobs", json={"prompt": word, "nothing": word})
        case 3:
            job = (await api.post("/v1/jobs", json={"prompt": "fail", "negative_prompt": word})).json()
            await api.get(f"/v1/jobs/{job.get('id', word)}")
        case _:
            body = {
                "prompt": word,
                "negative_prompt": word,
                "seed": number,
                "nag": {"scale": drawn.choice([1.0, 2.0 + drawn.random() * 18]), "alpha": drawn.random()},
                "priority": ("high", "normal", "low")[number % 3],
                "output_format": ("png", "jpeg", "webp")[number % 3],
                "output_compression": 100 if number % 3 == 0 else drawn.randrange(100),
                "num_inference_steps": 1 + number % 8,
            }
            await api.post("/v1/jobs", json=body, headers={"idempotency-key": word, "x-request-id": word})


def test_apps_do_not_share_their_metrics(settings: Settings) -> None:
    create_app(settings)
    create_app(settings)
