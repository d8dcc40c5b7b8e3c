"""A short form of both stories, and that the audit finds what it looks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from app.artifacts import artifact_name
from app.jobs import AppliedGuidance, Artifact, Job, JobError, Result, Timings
from app.queue import embedded
from app.queue.keys import Keys
from app.queue.queue import Queue
from app.settings import Settings
from benchmarks.chaos.audit import Findings, audit, transitions
from benchmarks.chaos.clients import RequestOutcome, Wish
from benchmarks.chaos.scenarios import chaos, rolling
from tests.claiming import claim

pytestmark = pytest.mark.slow  # starts services

keys = Keys("nag")

SLOW_S = 600  # of a machine that does much else


@pytest.mark.timeout(SLOW_S)
async def test_nothing_is_lost_or_done_twice_whatever_is_killed(tmp_path: Path) -> None:
    counts = {"kill_worker": 1, "kill_api": 1, "kill_redis": 1, "freeze_worker": 1}
    story = await chaos(tmp_path, 30, counts, seed=1, limit_s=SLOW_S - 20, fsync="always")
    assert story.faults == {}
    assert len(story.outcomes) == 30
    assert set(story.ends) <= {"completed", "cancelled", "expired deadline_exceeded", "failed worker_lost"}
    assert story.ends["completed"] >= 20
    assert {name: story.events[name] for name in counts} == counts


@pytest.mark.timeout(SLOW_S)
async def test_a_rolling_restart_loses_nothing_and_answers_no_5xx(tmp_path: Path) -> None:
    story = await rolling(tmp_path, seed=1, limit_s=SLOW_S - 20, at_once=6)
    assert story.faults == {}
    assert story.server_errors == 0, story.answers
    assert story.ends == {"completed": len(story.outcomes)}
    assert story.attempts == {1: len(story.outcomes)}  # what was handed back was not lost by anybody
    assert {outcome.wish.body["model"] for outcome in story.outcomes} == {"shapes-flux", "shapes-twin"}


class Clients:
    """Of a service that is not there: jobs are looked up in the queue."""

    def __init__(self, queue: Queue) -> None:
        self.outcomes: list[RequestOutcome] = []
        self._queue = queue

    async def look(self, job_id: str) -> dict[str, Any] | None:
        job = await self._queue.get(job_id)
        return None if job is None else {"status": str(job.status), "error": job.error and vars(job.error)}

    def was_told(self, job_id: str, status: str) -> RequestOutcome:
        self.outcomes.append(RequestOutcome(Wish(job_id, {"n": 1}, "held"), {job_id}, status))
        return self.outcomes[-1]


class Stage:
    """A queue with a journal, jobs in it, and what the audit makes of them."""

    def __init__(self, settings: Settings, make_job: Callable[..., Job]) -> None:
        self.settings = settings
        self.redis = Redis.from_url(embedded.url(settings), decode_responses=True)
        self.queue = Queue.connect(settings)
        self.clients = Clients(self.queue)
        self.artifacts = settings.data_folder / "artifacts"
        self.artifacts.mkdir()
        self.log = settings.data_folder / "worker-1.log"
        self.log.touch()
        self._make_job = make_job

    async def failed(self, job_id: str) -> RequestOutcome:
        """A job that ended as its client was told."""
        await self.queue.submit(self._make_job(job_id))
        await claim(self.queue, "w", "shapes-flux", 1, 0)
        assert await self.queue.fail("w", job_id, JobError("said", "why"))
        return self.clients.was_told(job_id, "failed")

    async def completed(self, job_id: str, *, stored: bool) -> None:
        await self.queue.submit(self._make_job(job_id))
        await claim(self.queue, "w", "shapes-flux", 1, 0)
        name = artifact_name(job_id, 0, "png")
        if stored:
            (self.artifacts / name).touch()
        made = Artifact(name, "image/png", 0, 7)
        result = Result((made,), AppliedGuidance(False, "no"), 1, Timings(1.0, 2.0, 3.0, 4.0, 10.0))
        assert await self.queue.finish("w", job_id, result)
        self.clients.was_told(job_id, "completed")

    async def audit(self) -> Findings:
        fleet = SimpleNamespace(
            settings=self.settings, redis=self.redis, workers=[SimpleNamespace(log=self.log)], clients=self.clients
        )
        return await audit(fleet, self.clients)  # type: ignore[arg-type]


@pytest.fixture
async def stage(tmp_path: Path, make_job: Callable[..., Job]) -> AsyncIterator[Stage]:
    settings = Settings(data_dir=tmp_path)
    server = embedded.start(settings)
    stage = Stage(settings, make_job)
    await stage.redis.config_set("appendfsync", "always")  # else a write waits while a slow disk is synced
    yield stage
    await stage.queue.close()
    await stage.redis.aclose()
    server.stop()


async def test_the_journal_has_every_end(stage: Stage) -> None:
    await stage.failed("a")
    await stage.failed("b")
    await stage.redis.hset(keys.job("b"), "status", "completed")
    journal = transitions(stage.settings.data_folder / "valkey")
    assert journal.created == {"a", "b"}
    assert journal.ended == {"a": ["failed"], "b": ["failed", "completed"]}


async def test_the_audit_is_content(stage: Stage) -> None:
    await stage.failed("a")
    assert (await stage.audit()).faults == {}


async def test_the_audit_finds_what_is_wrong(stage: Stage) -> None:
    for job_id in ("lost", "twice", "said", "changed", "unreasoned", "doubled", "wrong", "killed"):
        killed = await stage.failed(job_id)
    await stage.redis.delete(keys.job("lost"))
    await stage.redis.hset(keys.job("twice"), "status", "failed")
    await stage.redis.hdel(keys.job("unreasoned"), "error")
    killed.wrong.append("no image")
    for outcome in stage.clients.outcomes:
        if outcome.ids == {"changed"}:
            outcome.status = "cancelled"
        if outcome.ids == {"doubled"}:
            outcome.ids.add("said")
    await stage.redis.hset(keys.job("killed"), "attempts", "2")
    stage.log.write_text(" job_completed job=said worker=w\n" * 2 + " result_refused job=late worker=w\n")
    for job_id in ("job_none", "lost", "said", "killed"):
        (stage.artifacts / artifact_name(job_id, 0, "png")).touch()
    (stage.artifacts / f"{artifact_name('killed', 0, 'png')}#1").touch()
    await stage.completed("kept", stored=True)
    await stage.completed("gone", stored=False)
    await stage.redis.zadd(keys.LEASES, {"left": 1})
    found = await stage.audit()
    assert Counter({name: len(each) for name, each in found.faults.items()}) == {
        "lost": 1, "twice": 2, "doubled": 1, "changed": 1, "unreasoned": 1, "orphans": 3, "missing": 1, "wrong": 1,
        "left": 1,
    }  # fmt: skip
    assert found.refused == ["late"]
    assert [each.partition("-")[0] for each in found.missing] == ["gone"]
    assert [each.partition("-")[0] for each in found.leftovers] == ["killed"]
