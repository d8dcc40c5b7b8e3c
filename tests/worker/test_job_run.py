"""Files and the end of their job, where the two are hard to keep together."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from app.artifacts import Artifacts, artifact_name
from app.asyncio_utils import cancel_and_wait
from app.jobs import AppliedGuidance, Artifact, InputFiles, Job, JobStatus, Result, Timings
from app.queue.queue import Queue
from app.settings import Settings
from app.worker.jobs.job_run import JobRun
from app.worker.jobs.leases import Leases
from app.worker.outputs.encode import encode
from app.worker.protocol import JobCancelled, JobControl, JobOutput, Preview
from app.worker.recorder import Recorder
from tests.claiming import claim
from tests.inputs import edit

MODEL = "shapes-flux"
Make = Callable[..., Job]


class QuickEngine:
    """Makes a file of three bytes; its future is done at once."""

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput]:
        future: Future[JobOutput] = Future()
        future.set_result(JobOutput((b"one",), (7,), "image/png", AppliedGuidance(False, "no"), 1, 1.0, 2.0, 3.0))
        return future


async def run(settings: Settings, queue: Queue, artifacts: Artifacts, engine: Any) -> None:
    """Runs the next job, by worker w."""
    [job] = await claim(queue, "w", MODEL, 1, 0)
    leases = Leases("w", settings.lease_s, queue)
    keeping = asyncio.create_task(leases.keep(lambda: False))
    try:
        await JobRun("w", job, leases, queue, artifacts, engine, Recorder()).run()
    finally:
        await cancel_and_wait(keeping)
    assert job.id not in leases


async def status(queue: Queue, job_id: str) -> JobStatus:
    job = await queue.get(job_id)
    assert job is not None
    return job.status


async def test_a_job_cancelled_while_its_file_is_saved_keeps_none(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    class CancelledOnSaving(Artifacts):
        async def save(self, name: str, data: bytes | BinaryIO) -> int:
            size_bytes = await super().save(name, data)
            await queue.cancel("a")
            return size_bytes

    artifacts = CancelledOnSaving.open(settings)
    await queue.submit(make_job("a"))
    await run(settings, queue, artifacts, QuickEngine())
    assert await status(queue, "a") is JobStatus.CANCELLED
    assert stored(settings) == []


async def test_a_job_deleted_while_its_file_is_saved_leaves_none(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    class DeletedOnSaving(Artifacts):
        async def save(self, name: str, data: bytes | BinaryIO) -> int:
            size_bytes = await super().save(name, data)
            await queue.delete("a")
            return size_bytes

    await queue.submit(make_job("a"))
    await run(settings, queue, DeletedOnSaving.open(settings), QuickEngine())
    assert await queue.get("a") is None
    assert stored(settings) == []


async def test_a_file_saved_for_nothing_is_removed_where_the_job_completed_otherwise(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    other = artifact_name("a", 0, "png")

    class FinishedOnSaving(Artifacts):
        async def save(self, name: str, data: bytes | BinaryIO) -> int:
            await super().save(other, b"another's")
            assert await queue.finish("w", "a", result(other, b"another's"))
            return await super().save(name, data)

    await queue.submit(make_job("a"))
    await run(settings, queue, FinishedOnSaving.open(settings), QuickEngine())
    assert await status(queue, "a") is JobStatus.COMPLETED
    assert stored(settings) == [other]


async def test_a_file_stays_whose_result_was_written_though_nobody_heard_so(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    class RepeatingQueue(Queue):
        async def finish(self, worker: str, job_id: str, result: Result) -> bool:
            assert await super().finish(worker, job_id, result)
            return await super().finish(worker, job_id, result)  # as after an answer that was lost

    unheard = RepeatingQueue.connect(settings)
    await queue.submit(make_job("a"))
    await run(settings, unheard, Artifacts.open(settings), QuickEngine())
    await unheard.close()
    job = await queue.get("a")
    assert job is not None
    assert job.result is not None
    assert stored(settings) == [each.name for each in job.result.artifacts]


async def test_a_worker_that_stands_still_while_it_saves_leaves_the_file_of_the_one_that_took_over(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    hasty = settings.model_copy(update={"lease_s": 0.1})

    class StandingStill(Artifacts):
        async def save(self, name: str, data: bytes | BinaryIO) -> int:
            in_its_place(taken_over(hasty))  # the loop stands still until they are done
            return await super().save(name, data)

    hurried = Queue.connect(hasty)
    await hurried.submit(make_job("a"))
    artifacts = StandingStill.open(settings)
    await run(hasty, hurried, artifacts, QuickEngine())
    await hurried.close()
    job = await queue.get("a")
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    assert job.result is not None
    [kept] = job.result.artifacts
    assert stored(settings) == [kept.name]
    assert await artifacts.read(kept.name) == b"another's"


async def taken_over(settings: Settings) -> None:
    """Another worker makes and finishes the job whose lease has ended."""
    queue, artifacts = Queue.connect(settings), Artifacts.open(settings)
    while not await queue.maintenance.reap():  # noqa: ASYNC110 - leases end by time
        await asyncio.sleep(0.05)
    [job] = await claim(queue, "other", MODEL, 1, 0)
    name = artifact_name(job.id, 0, "png")
    await artifacts.save(name, b"another's")
    assert await queue.finish("other", job.id, result(name, b"another's"))
    await queue.close()


def stored(settings: Settings) -> list[str]:
    return sorted(each.name for each in (settings.data_folder / "artifacts").iterdir())


async def test_a_thumbnail_is_stored_beside_its_video_and_files_are_closed(
    settings: Settings, queue: Queue, make_job: Make, tmp_path: Path
) -> None:
    class VideoEngine:
        def submit(self, *_: object) -> Future[JobOutput]:
            future: Future[JobOutput] = Future()
            future.set_result(replace(output, files=(file,), thumbnails=(b"small",)))
            return future

    file = (tmp_path / "video").open("w+b")  # the run closes it
    file.write(b"large")
    output = JobOutput((), (7,), "video/mp4", AppliedGuidance(False, "no"), 1, 1.0, 2.0, 3.0)
    await queue.submit(make_job("a", output_format="mp4"))
    await run(settings, queue, Artifacts.open(settings), VideoEngine())
    assert file.closed
    job = await queue.get("a")
    assert job is not None
    assert job.result is not None
    [kept] = job.result.artifacts
    assert kept.size_bytes == 5
    assert stored(settings) == sorted(kept.names)
    assert [await Artifacts.open(settings).read(each) for each in kept.names] == [b"large", b"small"]


def in_its_place(coroutine: Coroutine[Any, Any, None]) -> None:
    thread = threading.Thread(target=asyncio.run, args=(coroutine,))
    thread.start()
    thread.join()


def result(name: str, data: bytes) -> Result:
    made = Artifact(name, "image/png", len(data), 7)
    return Result((made,), AppliedGuidance(False, "no"), 1, Timings(1.0, 2.0, 3.0, 4.0, 10.0))


class Reading(QuickEngine):
    """Notes what its jobs start from."""

    def __init__(self) -> None:
        self.files: list[InputFiles] = []

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput]:
        self.files.append(files)
        return super().submit(job, files, control)


async def test_what_a_job_starts_from_outlives_its_worker(settings: Settings, queue: Queue, make_job: Make) -> None:
    artifacts, name = Artifacts.open(settings), artifact_name("a-image", 0, "png")
    await artifacts.save(name, b"an image")
    short = Queue.connect(settings.model_copy(update={"lease_s": 0.01}))
    await queue.submit(make_job("a", **edit(0.5, name)))
    assert await claim(short, "dead", MODEL, 1, 0)
    while not await queue.maintenance.reap():  # noqa: ASYNC110 - looking is what is tested
        await asyncio.sleep(0.01)
    engine = Reading()
    await run(settings, queue, artifacts, engine)
    await short.close()
    assert engine.files == [{name: b"an image"}]
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts, job.request.strength) == (JobStatus.COMPLETED, 2, 0.5)
    assert [file.name for file in job.request.inputs] == [name]


@pytest.mark.parametrize("code", ["input_gone", "input_not_read"])
async def test_without_what_it_starts_from_a_job_fails_and_says_so(
    settings: Settings, queue: Queue, make_job: Make, code: str
) -> None:
    name = artifact_name("a-image", 0, "png")
    if code == "input_not_read":
        await Artifacts.open(settings).save(name, b"an image")
        (found,) = settings.data_dir.rglob(name)
        found.unlink()
        found.symlink_to(found)  # a loop, which is the store's own failure
    await queue.submit(make_job("a", **edit(0.5, name)))
    engine = Reading()
    await run(settings, queue, Artifacts.open(settings), engine)
    job = await queue.get("a")
    assert job is not None
    assert job.error is not None
    assert (job.status, job.error.code, engine.files) == (JobStatus.FAILED, code, [])


class PreviewEngine(QuickEngine):
    """Shows a preview after each of so many steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def submit(self, job: Job, files: InputFiles, control: JobControl) -> Future[JobOutput]:
        for step in range(1, self._steps + 1):
            control.on_preview(Preview(job.id, 0, step, np.full((16, 16, 3), (200, 0, 0), np.uint8)))
        return super().submit(job, files, control)


@pytest.mark.parametrize("steps", [3, 0])
async def test_previews_are_published_in_their_order_before_the_end_or_missed_in_a_warning(
    settings: Settings, queue: Queue, make_job: Make, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = iter([0.3])  # the first takes longest to encode

    def slow(*arguments: Any) -> bytes:
        sleep(next(late, 0.0))
        return encode(*arguments)

    monkeypatch.setattr("app.worker.jobs.job_run.encode", slow)
    await queue.submit(make_job("a", previews=3))
    await run(settings, queue, Artifacts.open(settings), PreviewEngine(steps))
    async with queue.follow("a") as feed, asyncio.timeout(30):
        events = await feed.next(10)
    assert [event.type.value for event in events] == ["queued", "started", *["preview"] * steps, "completed"]
    job = await queue.get("a")
    assert job is not None
    assert job.result is not None
    assert job.result.warnings == (() if steps else ("previews: none could be made",))
    previews = [event.data for event in events[2:-1]]
    assert [(preview["step"], preview["index"]) for preview in previews] == [(step, 0) for step in range(1, steps + 1)]
    for preview in previews:
        assert preview["media_type"] == "image/jpeg"
        image = Image.open(io.BytesIO(base64.b64decode(preview["b64_json"])))
        assert (image.format, image.size) == ("JPEG", (16, 16))
    assert not await queue.publish_preview("w", "a", 1, 0, b"", "image/jpeg")  # nothing after the end


class CancellingEngine:
    """Cancels each job, as if it had been left before its first denoiser call."""

    def submit(self, *_: object) -> Future[JobOutput]:
        future: Future[JobOutput] = Future()
        future.set_exception(JobCancelled())
        return future


async def test_a_job_that_was_left_is_handed_back(settings: Settings, queue: Queue, make_job: Make) -> None:
    await queue.submit(make_job("a"))
    await run(settings, queue, Artifacts.open(settings), CancellingEngine())
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


async def test_a_job_that_the_device_failed_with_keeps_its_lease(
    settings: Settings, queue: Queue, make_job: Make
) -> None:
    class FailingEngine:
        def submit(self, *_: object) -> Future[JobOutput]:
            future: Future[JobOutput] = Future()
            future.set_exception(RuntimeError("device lost"))
            return future

    await queue.submit(make_job("a"))
    with pytest.raises(RuntimeError, match="device lost"):
        await run(settings, queue, Artifacts.open(settings), FailingEngine())
    job = await queue.get("a")
    assert job is not None
    assert (job.status, job.attempts) == (JobStatus.IN_PROGRESS, 1)
