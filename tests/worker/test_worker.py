"""The worker against a real queue; its engine is scripted, since only the protocol matters here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app.artifacts import Artifacts, lora_name
from app.jobs import Job, JobError, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from app.worker import worker as module
from app.worker.jobs.leases import Leases
from app.worker.models.served_models import ServedModels
from app.worker.recorder import Recorder
from app.worker.worker import UNSTORED_MAX, Worker
from tests.claiming import claim
from tests.queue.clock import pass_time
from tests.queue.servers import valkey
from tests.queue.support import make_lora
from tests.worker.scripted import ScriptedEngine

MODEL = "shapes-flux"
Make = Callable[..., Job]
Connect = Callable[..., Queue]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def served(*models: str, required: Sequence[str] = ()) -> ServedModels:
    return ServedModels(models, models, frozenset(required))


@asynccontextmanager
async def working(
    settings: Settings, queue: Queue, engine: ScriptedEngine, models: Sequence[str] = (MODEL,)
) -> AsyncIterator[Worker]:
    worker = Worker(settings, queue, served(*models), lambda _: engine)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        assert await running == 0
    assert worker.name not in await queue.registry.workers()


async def ended(queue: Queue, job_id: str) -> Job:
    job = await queue.wait(job_id, 30)
    assert job is not None
    assert job.status.is_terminal
    return job


async def test_claim_run_store_finish(settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make) -> None:
    async with working(settings, queue, engine) as worker:
        await queue.submit(make_job("a", n=2))
        job = await ended(queue, "a")
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    first, second = job.result.artifacts
    assert [(each.size_bytes, each.seed) for each in (first, second)] == [(3, 7), (3, 8)]
    assert await Artifacts.open(settings).read(second.name) == b"two"
    assert job.worker == worker.name
    times = job.result.timings
    assert times.total_ms >= times.queue_ms >= 0


async def status(queue: Queue, job_id: str) -> JobStatus:
    job = await queue.get(job_id)
    assert job is not None
    return job.status


async def until(condition: Callable[[], object]) -> None:
    """Waits for another thread or task."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Looks:
    """Counts the calls of a method, by which a worker's tasks show that they have gone round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.count = 0
        method = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    async def again(self, times: int = 2) -> None:
        """Returns once so many more calls have begun: all but the last have ended, and what follows from them."""
        begun = self.count
        await until(lambda: self.count >= begun + times)


async def test_waiting_jobs_of_every_kind_run_together(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for number, name in enumerate("abc"):
        await queue.submit(make_job(name, num_inference_steps=2 + number, width=64 + 16 * number, prompt="slow 1"))
    async with working(settings, queue, engine):
        await until(lambda: engine.together)
        await until(lambda: engine.together[-1] == set("abc"))
        engine.go.set()
        assert [(await ended(queue, name)).status for name in "abc"] == [JobStatus.COMPLETED] * 3


async def test_a_job_fails_alone(settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make) -> None:
    for name, prompt in (("a", "fine"), ("b", "nan"), ("c", "fine")):
        await queue.submit(make_job(name, prompt=prompt))
    async with working(settings, queue, engine):
        jobs = [await ended(queue, name) for name in "abc"]
    assert [job.status for job in jobs] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    assert jobs[1].error == JobError("nan_output", "no numbers")


async def test_a_place_is_filled_as_soon_as_it_is_free(
    settings: Settings, queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the end of a job and by an arrival, not by looking again after a while."""
    monkeypatch.setattr(module, "CLAIM_S", 3600.0)
    engine = ScriptedEngine(images=2)
    async with working(settings, queue, engine):
        for name in "abc":
            await queue.submit(make_job(name, prompt="slow 1"))
        await until(lambda: len(engine.submitted) == 2)
        assert await status(queue, "c") is JobStatus.QUEUED  # for another worker to take
        await queue.cancel("a")
        await until(lambda: engine.submitted == ["a", "b", "c"])
        assert engine.together[-1] == {"b", "c"}
        engine.go.set()
        await queue.submit(make_job("d"))
        assert [(await ended(queue, name)).status for name in "bcd"] == [JobStatus.COMPLETED] * 3


async def test_results_that_wait_for_the_store_are_bounded(
    settings: Settings, queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, back = ScriptedEngine(images=1), asyncio.Event()
    save = Artifacts.save

    async def late(self: Artifacts, *arguments: Any) -> int:
        await back.wait()
        return await save(self, *arguments)

    monkeypatch.setattr(Artifacts, "save", late)
    monkeypatch.setattr(module, "CLAIM_S", 0.01)
    looks = Looks(monkeypatch, Worker, "_claim")
    names = [f"j{number}" for number in range(UNSTORED_MAX + 6)]
    for name in names:
        await queue.submit(make_job(name))
    async with working(settings, queue, engine):
        await until(lambda: len(engine.submitted) > UNSTORED_MAX)
        await looks.again(5)
        assert len(engine.submitted) <= UNSTORED_MAX + 2  # one ends before the worker hears of it
        back.set()
        assert [(await ended(queue, name)).status for name in names] == [JobStatus.COMPLETED] * len(names)


async def test_stopping_hands_back_what_does_not_end_in_time(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 0.05})
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow 1"))
    async with working(settings, queue, engine):
        assert await asyncio.to_thread(engine.running.wait, 30)
    for name in "ab":
        job = await queue.get(name)
        assert job is not None
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_stopping_finishes_what_ends_in_time(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 60.0})
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow 1"))
    async with working(settings, queue, engine) as worker:
        assert await asyncio.to_thread(engine.running.wait, 30)
        worker.stop()
        await queue.submit(make_job("c"))
        engine.go.set()
    assert [(await ended(queue, name)).status for name in "ab"] == [JobStatus.COMPLETED] * 2
    later = await queue.get("c")
    assert later is not None
    assert later.status is JobStatus.QUEUED


async def test_told_twice_a_worker_does_not_wait(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 3600.0})
    await queue.submit(make_job("a", prompt="slow 1"))
    async with working(settings, queue, engine) as worker:
        assert await asyncio.to_thread(engine.running.wait, 30)
        worker.stop()
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_a_job_that_cannot_be_left_is_handed_back_all_the_same(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_S", 0.05)
    settings = settings.model_copy(update={"drain_s": 0.0})
    await queue.submit(make_job("a", prompt="decode"))
    async with working(settings, queue, engine):
        assert await asyncio.to_thread(engine.running.wait, 30)
    engine.decoded.set()
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_models_are_loaded_where_they_fit_and_served_where_they_do_not(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine, [MODEL, "large", "small"]) as worker:
        async with asyncio.timeout(30):
            while (await queue.registry.workers()).get(worker.name) != [MODEL, "small"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await queue.registry.served_models() == {MODEL, "large", "small"}
        await queue.submit(make_job("a", model="large"))
        assert (await ended(queue, "a")).status is JobStatus.COMPLETED


async def test_a_model_that_does_not_fit_beside_those_at_work_waits_for_their_jobs(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine, [MODEL, "large", "small"]):
        await queue.submit(make_job("a", prompt="slow 1"))
        await until(lambda: engine.submitted)
        await queue.submit(make_job("b", model="large"))
        await queue.submit(make_job("c", model="small"))
        await ended(queue, "c")
        assert await status(queue, "b") is JobStatus.QUEUED
        engine.go.set()
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED


async def test_jobs_of_a_model_that_is_not_here_wait_for_its_download(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    engine.absent = {"far", "unwanted"}
    async with working(settings, queue, engine, [MODEL, "far", "unwanted"]) as worker:
        await queue.submit(make_job("a", model="far"))
        async with asyncio.timeout(30):
            while "far" not in (await queue.registry.model_states()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await queue.registry.states())[worker.name]["far"].stage == "downloading"
        await queue.submit(make_job("b"))
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED
        waiting = await queue.get("a")
        assert waiting is not None
        assert waiting.status is JobStatus.QUEUED
        engine.absent.clear()
        assert (await ended(queue, "a")).status is JobStatus.COMPLETED
    assert engine.downloads == ["far"]
    assert engine.submitted == ["b", "a"]


async def test_a_required_model_is_warm_once_it_is_downloaded(
    settings: Settings, queue: Queue, engine: ScriptedEngine
) -> None:
    engine.absent = {MODEL, "other"}
    worker = Worker(settings, queue, served(MODEL, "other", required=[MODEL]), lambda _: engine)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while engine.downloads != [MODEL]:  # noqa: ASYNC110 - another task
            await asyncio.sleep(0.01)
        engine.absent.clear()
        while (await queue.registry.workers()).get(worker.name) != [MODEL]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    worker.stop()
    assert await running == 0


async def test_a_worker_serves_once_it_takes_jobs(settings: Settings, queue: Queue, engine: ScriptedEngine) -> None:
    engine.may_load.clear()
    async with working(settings, queue, engine) as worker:
        assert await asyncio.to_thread(engine.loading.wait, 30)
        async with asyncio.timeout(30):
            while worker.name not in await queue.registry.workers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await queue.registry.served_models() == set()
        engine.may_load.set()
        async with asyncio.timeout(30):
            while await queue.registry.served_models() != {MODEL}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await queue.registry.workers())[worker.name] == [MODEL]


async def test_without_models_to_load_a_worker_serves_at_once(
    settings: Settings, queue: Queue, engine: ScriptedEngine
) -> None:
    worker = Worker(settings, queue, ServedModels((MODEL,), (), frozenset()), lambda _: engine)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while await queue.registry.served_models() != {MODEL}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    worker.stop()
    assert await running == 0


async def test_a_worker_told_to_stop_while_it_loads_does_not_wait(
    settings: Settings, queue: Queue, engine: ScriptedEngine
) -> None:
    engine.may_load.clear()
    async with working(settings, queue, engine):
        assert await asyncio.to_thread(engine.loading.wait, 30)
    assert engine.is_closed
    engine.may_load.set()


async def test_leases_are_kept_and_the_step_of_each_job_is_told(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.jobs.leases.BEAT_S", 0.02)
    beats = Looks(monkeypatch, queue, "heartbeat")
    for name, prompt in (("a", "slow 1"), ("b", "slow 2")):
        await queue.submit(make_job(name, prompt=prompt))
    async with working(settings, queue, engine):
        await until(lambda: len(engine.submitted) == 2)
        for _ in range(3):  # together more than a lease
            await pass_time(queue, settings.lease_s / 2)
            await beats.again()
        assert await queue.maintenance.reap() == 0
        jobs = [await queue.get(name) for name in "ab"]
        assert [(job.status, job.step) for job in jobs if job is not None] == [
            (JobStatus.IN_PROGRESS, 1),
            (JobStatus.IN_PROGRESS, 2),
        ]
        engine.go.set()
        assert [(await ended(queue, name)).attempts for name in "ab"] == [1, 1]


async def test_a_worker_that_stood_still_keeps_its_jobs(
    settings: Settings, engine: ScriptedEngine, make_job: Make, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it looks for leases that have ended before it renews its own."""
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    queue = connect(settings.model_copy(update={"lease_s": 0.3}))
    looks = Looks(monkeypatch, queue.maintenance, "reap")

    async def stand_still(*_: object) -> None: ...

    monkeypatch.setattr(Leases, "renew", stand_still)
    await queue.submit(make_job("a", prompt="slow 1"))
    async with working(settings.model_copy(update={"lease_s": 0.3}), queue, engine):
        assert await asyncio.to_thread(engine.running.wait, 30)
        await pass_time(queue, 1)
        await looks.again()
        engine.go.set()
        job = await ended(queue, "a")
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)


async def test_a_worker_that_starts_gives_the_others_time_to_renew(
    settings: Settings, engine: ScriptedEngine, make_job: Make, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 3600.0)
    queue = connect(settings.model_copy(update={"lease_s": 0.3}))
    rounds = Looks(monkeypatch, queue.maintenance, "forget")
    await queue.submit(make_job("a"))
    await claim(queue, "silent", MODEL, 1, 0)
    await pass_time(queue, 1)
    async with working(settings.model_copy(update={"lease_s": 0.3}), queue, engine):
        await queue.submit(make_job("b"))
        await ended(queue, "b")
        await rounds.again()
        assert await queue.heartbeat("silent", {"a": 1}) == []


async def test_a_worker_whose_engine_is_stuck_ends_and_its_leases_end_by_themselves(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.jobs.leases.BEAT_S", 0.02)
    beats = Looks(monkeypatch, Leases, "renew")
    settings = settings.model_copy(update={"stuck_s": 60.0})
    await queue.submit(make_job("a", prompt="decode"))
    worker = Worker(settings, queue, served(MODEL), lambda _: engine)
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(engine.running.wait, 30)
    engine.stuck_s = 59.0
    await beats.again()
    assert not running.done()
    engine.stuck_s = 61.0
    assert await running == 1
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.IN_PROGRESS, 1)
    await pass_time(queue, settings.lease_s)
    assert await queue.maintenance.reap() == 1
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 1)  # counted
    engine.decoded.set()


async def test_a_job_nobody_wants_any_more_is_left(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    await queue.submit(make_job("a", prompt="slow 1"))
    async with working(settings, queue, engine) as worker:
        assert await asyncio.to_thread(engine.running.wait, 30)
        assert await queue.fail(worker.name, "a", JobError("elsewhere", "ended elsewhere"))
        await queue.submit(make_job("b"))
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED


async def test_a_cancelled_job_is_left_long_before_the_next_heartbeat(
    settings: Settings, queue: Queue, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.jobs.leases.BEAT_S", 3600.0)
    settings = settings.model_copy(update={"lease_s": 3600.0 * 3})
    engine = ScriptedEngine(images=2)
    for name in "abc":
        await queue.submit(make_job(name, prompt="slow 1"))
    async with working(settings, queue, engine):
        await until(lambda: len(engine.submitted) == 2)
        await queue.cancel("a")
        await until(lambda: len(engine.submitted) == 3)
        assert engine.together[-1] == {"b", "c"}  # b is wanted still
        engine.go.set()
        assert [(await ended(queue, name)).status for name in "bc"] == [JobStatus.COMPLETED] * 2
    assert (await ended(queue, "a")).status is JobStatus.CANCELLED


async def test_a_step_is_told_long_before_the_next_heartbeat(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.jobs.leases.BEAT_S", 3600.0)
    settings = settings.model_copy(update={"lease_s": 3600.0 * 3})
    await queue.submit(make_job("a", prompt="slow 1"))
    async with queue.follow("a") as feed, working(settings, queue, engine):
        async with asyncio.timeout(30):
            while not any(event.data == {"step": 1} for event in await feed.next(30)):
                pass
        engine.go.set()


async def test_a_cancelled_job_leaves_no_file_and_its_neighbor_is_finished(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow 1"))
    async with working(settings, queue, engine):
        assert await asyncio.to_thread(engine.running.wait, 30)
        await queue.cancel("a")
        await until(lambda: "a" not in engine.in_flight)
        engine.go.set()
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED
    assert (await ended(queue, "a")).status is JobStatus.CANCELLED
    assert {each.name[0] for each in (settings.data_folder / "artifacts").iterdir()} == {"b"}


async def test_a_late_job_is_left(settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make) -> None:
    await queue.submit(make_job("a", prompt="slow 1"), deadline_s=3600)
    async with working(settings, queue, engine):
        assert await asyncio.to_thread(engine.running.wait, 30)
        await pass_time(queue, 3600)
        await queue.submit(make_job("b"))
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED
    assert (await ended(queue, "a")).status is JobStatus.EXPIRED


async def test_a_late_job_that_nobody_takes_expires(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"lease_s": 0.3})
    await queue.submit(make_job("a", model="unserved"), deadline_s=60)
    await pass_time(queue, 60)
    async with working(settings, queue, engine):
        while await queue.depth("unserved"):  # noqa: ASYNC110 - to look at the job itself would make it expire
            await asyncio.sleep(0.01)


async def test_a_job_that_was_lost_runs_alone(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM_S", 0.01)
    looks = Looks(monkeypatch, Worker, "_claim")
    for name, prompt in (("a", "slow 1"), ("b", "decode"), ("c", "decode")):
        await queue.submit(make_job(name, prompt=prompt))
    await claim(queue, "dead", MODEL, 1, 0)
    await pass_time(queue, settings.lease_s)
    await queue.maintenance.reap()
    async with working(settings, queue, engine):
        await until(lambda: engine.submitted)
        await looks.again()
        engine.go.set()
        await until(lambda: len(engine.submitted) == 3)
        engine.decoded.set()
        attempts = [(await ended(queue, name)).attempts for name in "abc"]
    assert engine.together == [{"a"}, {"b"}, {"b", "c"}]
    assert attempts == [2, 1, 1]


async def test_a_model_that_cannot_be_loaded_leaves_the_others_their_worker(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine, ["broken", MODEL]) as worker:
        await queue.submit(make_job("a"))
        await ended(queue, "a")
        # It announces beside its work; the test's timeout is the judge.
        while (await queue.registry.workers())[worker.name] != [MODEL]:  # noqa: ASYNC110 - the registry tells nobody
            await asyncio.sleep(0.01)
    assert await Worker(settings, queue, served("broken", required=["broken"]), lambda _: ScriptedEngine()).run() == 1


async def test_a_result_that_cannot_be_stored_fails_the_job(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine):
        folder = settings.data_folder / "artifacts"
        folder.rmdir()
        folder.touch()
        await queue.submit(make_job("a"))
        job = await ended(queue, "a")
    assert job.error is not None
    assert job.error.code == "artifact_not_stored"


async def test_a_device_that_failed_for_good_ends_the_worker_and_its_leases_end_by_themselves(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for name, prompt in (("a", "slow 1"), ("b", "device")):
        await queue.submit(make_job(name, prompt=prompt))
    with pytest.raises(RuntimeError, match="device lost"):
        await Worker(settings, queue, served(MODEL), lambda _: engine).run()
    jobs = [await queue.get(name) for name in "ab"]
    assert [(job.status, job.attempts) for job in jobs if job is not None] == [(JobStatus.IN_PROGRESS, 1)] * 2
    assert await queue.registry.workers() == {}


async def test_an_engine_that_cannot_be_made_ends_the_worker(settings: Settings, queue: Queue) -> None:
    def fail(_: Recorder) -> ScriptedEngine:
        raise RuntimeError("no such device")

    assert await Worker(settings, queue, served(MODEL), fail).run() == 1


async def test_models_take_turns(settings: Settings, queue: Queue, make_job: Make) -> None:
    engine = ScriptedEngine(images=1)
    for i in range(3):
        await queue.submit(make_job(f"a{i}"))
        await queue.submit(make_job(f"b{i}", model="other"))
    async with working(settings, queue, engine, [MODEL, "other"]):
        await ended(queue, "a2")
        await ended(queue, "b2")
    assert set(engine.submitted[:2]) == {"a0", "b0"}


async def lease_end(redis: Redis, leases: str) -> None:
    """Returns once the first lease has ended."""
    lease: Any = redis.zrange(leases, 0, 0, withscores=True)
    [(_, end_ms)] = lease
    async with asyncio.timeout(30):
        while redis.time()[0] * 1000 <= end_ms:  # noqa: ASYNC110 - the time of a server that takes no writes
            await asyncio.sleep(0.01)


async def test_after_redis_took_no_writes_a_finished_job_is_reported_before_it_is_reaped(
    settings: Settings, tmp_path: Path, engine: ScriptedEngine, make_job: Make, connect: Connect
) -> None:
    settings = settings.model_copy(update={"lease_s": 1.0})
    other = ScriptedEngine()
    other.go.set()  # a job that was reaped would end there, in its second attempt
    with valkey(tmp_path / "valkey") as server:
        queue = connect(settings, server.url)
        await queue.submit(make_job("a", prompt="slow 1"))
        async with working(settings, queue, engine):
            assert await asyncio.to_thread(engine.running.wait, 30)  # before another worker can claim the job
            async with working(settings, queue, other) as reaper:
                async with asyncio.timeout(30):
                    while reaper.name not in await queue.registry.workers():  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.01)
                server.admin.config_set("min-replicas-to-write", "1")
                engine.go.set()
                await lease_end(server.admin, queue.keys.LEASES)
                server.admin.config_set("min-replicas-to-write", "0")
                job = await ended(queue, "a")
        assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)


async def test_files_of_loras_that_are_left_over_are_removed(
    settings: Settings, queue: Queue, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, (left, registered, recent) = Artifacts.open(settings), (f"{i:016x}" for i in range(3))
    for version in (left, registered):
        await queue.loras.note_file(version)
        await artifacts.save(lora_name(version), b"x")
    await queue.loras.add(make_lora(version=registered), most=1, most_bytes=10)
    await pass_time(queue, 60)
    await queue.loras.note_file(recent)  # its upload is under way
    await artifacts.save(lora_name(recent), b"x")
    monkeypatch.setattr(module, "LEFTOVER_S", 30.0)
    async with working(settings, queue, engine):
        while left in await queue.loras.leftovers(0):  # noqa: ASYNC110 - looking is all that there is
            await asyncio.sleep(0.01)
    with pytest.raises(FileNotFoundError):
        await artifacts.find(lora_name(left))
    for version in (registered, recent):
        assert (await artifacts.find(lora_name(version))).size_bytes == 1
    assert await queue.loras.leftovers(-60) == [recent]
