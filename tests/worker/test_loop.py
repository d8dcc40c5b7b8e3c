"""The loop against a real queue; the engine is a script of its own, since only its thread's contract matters here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import sleep

import pytest
from app.worker.loop import Worker

from app.artifacts import Artifacts
from app.jobs import Applied, Job, JobError, JobStatus
from app.queue.queue import Queue
from app.settings import Settings
from app.worker import loop
from app.worker.models import Models
from app.worker.recorder import Recorder
from app.worker.states import ModelStates
from app.worker.work import Control, Made, Stopped
from tests.claiming import PICTURE, claim
from tests.queue.servers import valkey

MODEL = "shapes-flux"
Make = Callable[..., Job]
Connect = Callable[..., Queue]


class ScriptedEngine:
    """Denoises nothing: prompts say what happens. `slow` steps until it is told to stop or `go` is set."""

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self.batches: list[list[str]] = []
        self.running = threading.Event()
        self.go = threading.Event()
        self.decode = threading.Event()
        self.recovered = 0
        self.warm: tuple[str, ...] = ()
        self.states = ModelStates()
        self.is_downloading = False
        self.absent: set[str] = set()  # models to be downloaded
        self.downloads: list[str] = []
        self.unmeasured: list[str] = []

    def takes_jobs(self, model: str) -> bool:
        return model not in self.absent

    def download(self, model: str) -> None:
        if model not in self.downloads:
            self.downloads.append(model)
            self.states.set(model, "downloading")

    def fits(self, model: str) -> bool:
        return model != "large"

    def load(self, model: str) -> None:
        if model == "broken":
            raise OSError("no such model")
        self.warm = (*self.warm, model)
        self.states.set(model, "warm")

    def is_measured(self, model: str) -> bool:
        return model not in self.unmeasured

    def measure(self, model: str) -> None:
        self.unmeasured.remove(model)

    def budget(self, model: str) -> int:
        return self.most * PICTURE

    def run(self, jobs: Sequence[Job], control: Control) -> dict[str, Made | JobError]:
        control.check()
        self.batches.append([job.id for job in jobs])
        prompts = {job.request.prompt for job in jobs}
        if "poison" in prompts:
            raise ValueError("cannot do poison at /secret/path")
        self.running.set()
        while "slow" in prompts and not self.go.is_set():
            control.step = 1
            control.check()
            sleep(0.01)
        if "one step" in prompts:
            control.step = 1
            control.on_step()
            assert self.go.wait(30)
        if "decode" in prompts:  # the decode stage, which lasts until the test ends it
            control.on_denoised()
            assert self.decode.wait(30)
        return {
            job.id: JobError("nan_output", "said")
            if job.request.prompt == "nan"
            else Made((b"one", b"two")[: job.request.n], (7, 8)[: job.request.n], "image/png",
                      Applied(False, "not_requested"), len(jobs), 1.0, 2.0, 3.0)
            for job in jobs
        }  # fmt: skip

    def recover(self) -> None:
        self.recovered += 1


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def served(*models: str, required: Sequence[str] = ()) -> Models:
    return Models(models, models, frozenset(required))


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
    assert job.status.terminal
    return job


async def wait_for_batch(engine: ScriptedEngine) -> None:
    """Waits until the engine is at work on a batch."""
    assert await asyncio.to_thread(engine.running.wait, 30)


async def wait_for_announcement(queue: Queue, worker: Worker) -> None:
    """Waits until the worker is in the registry."""
    async with asyncio.timeout(30):
        while worker.name not in await queue.registry.workers():  # noqa: ASYNC110 - the registry tells nobody
            await asyncio.sleep(0.01)


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


async def test_waiting_jobs_share_a_batch(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for name in "abc":
        await queue.submit(make_job(name))
    async with working(settings, queue, engine):
        for name in "abc":
            await ended(queue, name)
    assert engine.batches == [["a", "b", "c"]]


async def test_a_poisoned_job_fails_alone_and_says_no_path(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, caplog: pytest.LogCaptureFixture
) -> None:
    for name, prompt in (("a", "fine"), ("b", "poison"), ("c", "nan"), ("d", "fine")):
        await queue.submit(make_job(name, prompt=prompt))
    async with working(settings, queue, engine):
        jobs = {name: await ended(queue, name) for name in "abcd"}
    assert [jobs[name].status for name in "abcd"] == [
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.FAILED,
        JobStatus.COMPLETED,
    ]
    assert jobs["b"].error == JobError("generation_failed", "the model could not generate this (ValueError)")
    assert jobs["c"].error == JobError("nan_output", "said")
    assert engine.recovered == 3  # of four, of two, alone: halves, not one by one
    assert engine.batches == [["a", "b", "c", "d"], ["a", "b"], ["a"], ["b"], ["c", "d"]]
    assert "poison" not in caplog.text


async def test_stopping_hands_back_what_does_not_end_in_time(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 0.05})
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow"))
    async with working(settings, queue, engine) as worker:
        await wait_for_batch(engine)
    assert not worker.busy  # it was left at a step, not abandoned
    for name in "ab":
        job = await queue.get(name)
        assert job is not None
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_stopping_finishes_what_ends_in_time(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 60.0})
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow"))
    async with working(settings, queue, engine) as worker:
        await wait_for_batch(engine)
        worker.stop()
        await queue.submit(make_job("c"))
        await asyncio.sleep(0.1)
        engine.go.set()
    assert [(await ended(queue, name)).status for name in "ab"] == [JobStatus.COMPLETED] * 2
    later = await queue.get("c")
    assert later is not None
    assert later.status is JobStatus.QUEUED


async def test_told_twice_a_worker_does_not_wait(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"drain_s": 3600.0})
    await queue.submit(make_job("a", prompt="slow"))
    async with working(settings, queue, engine) as worker:
        await wait_for_batch(engine)
        worker.stop()
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_a_batch_that_cannot_be_left_is_handed_back_all_the_same(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LEAVE_S", 0.05)
    settings = settings.model_copy(update={"drain_s": 0.0})
    await queue.submit(make_job("a", prompt="decode"))
    async with working(settings, queue, engine) as worker:
        await wait_for_batch(engine)
    engine.decode.set()
    assert worker.busy  # the process must not wait for the thread
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_the_next_batch_begins_while_one_is_decoded_and_no_third(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for i, name in enumerate("abc"):  # three of different batch keys
        await queue.submit(make_job(name, prompt="decode", num_inference_steps=2 + i))
    async with working(settings, queue, engine):
        async with asyncio.timeout(30):
            while len(engine.batches) < 2:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert engine.batches == [["a"], ["b"]]
        third = await queue.get("c")
        assert third is not None
        assert third.status is JobStatus.QUEUED  # for another worker to take
        engine.decode.set()
        assert [(await ended(queue, name)).status for name in "abc"] == [JobStatus.COMPLETED] * 3


async def test_models_are_loaded_where_they_fit_and_served_where_they_do_not(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine, [MODEL, "large", "small"]) as worker:
        async with asyncio.timeout(30):
            while (await queue.registry.workers()).get(worker.name) != [MODEL, "small"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await queue.registry.served() == {MODEL, "large", "small"}
        await queue.submit(make_job("a", model="large"))
        assert (await ended(queue, "a")).status is JobStatus.COMPLETED


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
    assert engine.batches == [["b"], ["a"]]


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
    loading = threading.Event()

    def load(model: str) -> None:
        loading.set()
        assert engine.go.wait(30)
        ScriptedEngine.load(engine, model)

    engine.load = load
    async with working(settings, queue, engine) as worker:
        assert await asyncio.to_thread(loading.wait, 30)
        await wait_for_announcement(queue, worker)
        assert await queue.registry.served() == set()
        engine.go.set()
        async with asyncio.timeout(30):
            while await queue.registry.served() != {MODEL}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await queue.registry.workers())[worker.name] == [MODEL]


async def test_without_models_to_load_a_worker_serves_at_once(
    settings: Settings, queue: Queue, engine: ScriptedEngine
) -> None:
    worker = Worker(settings, queue, Models((MODEL,), (), frozenset()), lambda _: engine)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while await queue.registry.served() != {MODEL}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    worker.stop()
    assert await running == 0


async def test_a_model_loaded_by_a_job_is_measured_after_its_first_batch(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    async with working(settings, queue, engine):
        async with asyncio.timeout(30):
            while not engine.warm:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0.01)
        engine.unmeasured = [MODEL]
        await queue.submit(make_job("a"))
        await ended(queue, "a")
        await queue.submit(make_job("b"))
        await ended(queue, "b")
        assert engine.unmeasured == []


async def test_leases_are_kept_and_the_step_is_told(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, connect: Connect
) -> None:
    settings = settings.model_copy(update={"lease_s": 0.6})
    short = connect(settings)
    await short.submit(make_job("a", prompt="slow"))
    async with working(settings, short, engine):
        await wait_for_batch(engine)
        await asyncio.sleep(1.5)
        assert await short.upkeep.reap() == 0
        job = await short.get("a")
        assert job is not None
        assert (job.status, job.step) == (JobStatus.IN_PROGRESS, 1)
        engine.go.set()
        assert (await ended(queue, "a")).attempts == 1


async def test_a_batch_nobody_wants_any_more_is_left(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    await queue.submit(make_job("a", prompt="slow"))
    async with working(settings, queue, engine) as worker:
        await wait_for_batch(engine)
        assert await queue.fail(worker.name, "a", JobError("elsewhere", "ended elsewhere"))
        await queue.submit(make_job("b"))
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED


async def test_a_cancelled_batch_is_left_long_before_its_next_heartbeat(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.leases.BEAT_S", 3600.0)
    settings = settings.model_copy(update={"lease_s": 3600.0})
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow"))
    async with working(settings, queue, engine):
        await wait_for_batch(engine)
        await queue.cancel("a")
        await queue.submit(make_job("c"))
        waiting = await queue.wait("c", 0.3)
        assert waiting is not None
        assert waiting.status is JobStatus.QUEUED  # b is wanted still
        await queue.cancel("b")
        assert (await ended(queue, "c")).status is JobStatus.COMPLETED
    assert engine.batches == [["a", "b"], ["c"]]
    assert [(await ended(queue, name)).status for name in "ab"] == [JobStatus.CANCELLED] * 2


async def test_a_step_is_told_long_before_the_next_heartbeat(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.leases.BEAT_S", 3600.0)
    settings = settings.model_copy(update={"lease_s": 3600.0 * 3})
    await queue.submit(make_job("a", prompt="one step"))
    async with queue.follow("a") as feed, working(settings, queue, engine):
        async with asyncio.timeout(30):
            while not any(event.data == {"step": 1} for event in await feed.next(30)):
                pass
        engine.go.set()


async def test_what_is_left_of_a_cancelled_batch_is_finished(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    for name in "ab":
        await queue.submit(make_job(name, prompt="slow"))
    async with working(settings, queue, engine):
        await wait_for_batch(engine)
        await queue.cancel("a")
        await asyncio.sleep(0.3)
        engine.go.set()
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED
    assert (await ended(queue, "a")).status is JobStatus.CANCELLED
    assert {each.name[0] for each in (settings.data_folder / "artifacts").iterdir()} == {"b"}


async def test_a_late_batch_is_left(settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make) -> None:
    await queue.submit(make_job("a", prompt="slow"), deadline_s=0.5)
    async with working(settings, queue, engine):
        await wait_for_batch(engine)
        await queue.submit(make_job("b"))
        assert (await ended(queue, "b")).status is JobStatus.COMPLETED
    assert (await ended(queue, "a")).status is JobStatus.EXPIRED


async def test_a_late_job_that_nobody_takes_expires(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make
) -> None:
    settings = settings.model_copy(update={"lease_s": 0.3})
    await queue.submit(make_job("a", model="unserved"), deadline_s=0.1)
    async with working(settings, queue, engine):
        while await queue.depth("unserved"):  # noqa: ASYNC110 - to look at the job itself would make it expire
            await asyncio.sleep(0.01)


async def test_a_job_that_was_lost_runs_alone(
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, connect: Connect
) -> None:
    hasty = connect(settings.model_copy(update={"lease_s": 0.01}))
    for name in "abc":
        await hasty.submit(make_job(name))
    await claim(hasty, "dead", MODEL, 1, 0)
    await asyncio.sleep(0.05)
    await hasty.upkeep.reap()
    async with working(settings, queue, engine):
        attempts = [(await ended(queue, name)).attempts for name in "abc"]
    assert engine.batches == [["a"], ["b", "c"]]
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
    settings: Settings, queue: Queue, engine: ScriptedEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine, "recover", fail)
    for name, prompt in (("a", "poison"), ("b", "fine")):
        await queue.submit(make_job(name, prompt=prompt))
    with pytest.raises(RuntimeError, match="device lost"):
        await Worker(settings, queue, served(MODEL), lambda _: engine).run()
    job = await queue.get("b")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.IN_PROGRESS, 1)
    assert await queue.registry.workers() == {}


async def test_an_engine_that_cannot_be_made_ends_the_worker(settings: Settings, queue: Queue) -> None:
    def fail(_: Recorder) -> ScriptedEngine:
        raise RuntimeError("no such device")

    assert await Worker(settings, queue, served(MODEL), fail).run() == 1


async def test_models_take_turns(settings: Settings, queue: Queue, make_job: Make) -> None:
    engine = ScriptedEngine(most=1)
    for i in range(3):
        await queue.submit(make_job(f"a{i}"))
        await queue.submit(make_job(f"b{i}", model="other"))
    async with working(settings, queue, engine, [MODEL, "other"]):
        await ended(queue, "a2")
        await ended(queue, "b2")
    assert {batch[0] for batch in engine.batches[:2]} == {"a0", "b0"}


def test_a_stop_is_no_error() -> None:
    with pytest.raises(Stopped):
        Control(stopping=True).check()


async def test_after_redis_took_no_writes_a_finished_job_is_reported_before_it_is_reaped(
    settings: Settings, tmp_path: Path, engine: ScriptedEngine, make_job: Make, connect: Connect
) -> None:
    settings = settings.model_copy(update={"lease_s": 1.0})
    other = ScriptedEngine()
    other.go.set()  # a job that was reaped would end there, in its second attempt
    with valkey(tmp_path / "valkey") as server:
        queue = connect(settings, server.url)
        await queue.submit(make_job("a", prompt="slow"))
        async with working(settings, queue, engine):
            await wait_for_batch(engine)  # before there is another worker, which could claim the job
            async with working(settings, queue, other) as reaper:
                await wait_for_announcement(queue, reaper)
                server.admin.config_set("min-replicas-to-write", "1")
                engine.go.set()
                await asyncio.sleep(2 * settings.lease_s)
                server.admin.config_set("min-replicas-to-write", "0")
                job = await ended(queue, "a")
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)
