"""The engine: jobs in flight share denoiser calls, and each begins, fails and ends on its own."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch

from app.catalog import Catalog, Model, Scheduler
from app.formats import IMAGES
from app.jobs import PROMPT_TOO_LONG, Job, JobError
from app.loading.errors import RepositoryAccessError
from app.loading.size import model_size
from app.queue.registry import ModelState
from app.settings import Settings
from app.worker.devices import memory
from app.worker.engine import module_runner, pipelines, scheduler
from app.worker.engine.job_errors import OUT_OF_MEMORY, UNWRITABLE
from app.worker.engine.pipeline_call import PipelineCall, call_module
from app.worker.engine.pipelines import load
from app.worker.engine.torch_engine import TorchEngine
from app.worker.models.file_reader import FileReader
from app.worker.outputs import video
from app.worker.outputs.postprocess import NAN
from app.worker.protocol import JobCancelled, JobControl, JobOutput, Room
from app.worker.recorder import Event, Recorder
from tests.limits import HANG_S
from tests.pictures import read_back
from tests.worker.generate import difference, levels, run_jobs
from tests.worker.mixes import FILES, NAG, alone, image_mix

MODEL = "shapes-flux"
IMAGE = 64 * 64  # units of Generation.cost
Make = Callable[..., Job]
MakeEngine = Callable[..., TorchEngine]
Ends = Future[JobOutput | JobError]


@dataclass(frozen=True)
class Call:
    """A call of a shared module for these jobs, one entry for each of their images."""

    kind: str
    model: str
    jobs: tuple[str, ...]


@dataclass
class Calls:
    """The calls that an engine makes; `before` is called in its thread ahead of each, and may raise."""

    made: list[Call] = field(default_factory=list)
    before: Callable[[Call], object] = lambda _: None

    def of(self, kind: str) -> list[tuple[str, ...]]:
        return [call.jobs for call in self.made if call.kind == kind]

    @property
    def steps(self) -> list[tuple[str, ...]]:
        return self.of("denoiser")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the engines of the test call, without trials. No call is overdue, however slow the machine is."""
    calls = Calls()

    def watched(group: list[PipelineCall]) -> list[Any]:
        if group[0].job.id == "trial":
            return call_module(group)
        call = Call(group[0].suspended.module.kind, group[0].model.entry.id, tuple(member.job.id for member in group))
        calls.made.append(call)
        calls.before(call)
        return call_module(group)

    monkeypatch.setattr(module_runner, "call_module", watched)
    monkeypatch.setattr(scheduler, "OVERDUE_S", math.inf)
    return calls


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The pipelines that the engines of the test load, by model."""
    pipes: dict[str, Any] = {}

    def note(entry: Model, device: torch.device) -> Any:
        pipes[entry.id] = load(entry, device)
        return pipes[entry.id]

    monkeypatch.setattr(pipelines, "load", note)
    return pipes


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """`make_engine(batch_size=8, …)`: an engine that is not started; keywords change its settings."""
    made: list[TorchEngine] = []

    def make(catalog: Catalog | None = None, **changes: Any) -> TorchEngine:
        settings = Settings(**{"device": "cpu", "batch_size": 4, "batch_budget": "fixed", **changes})
        made.append(TorchEngine(catalog or Catalog.load(settings), settings, Recorder()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def with_model(name: str, **changes: Any) -> Catalog:
    """The catalog with a copy of the embedded model's entry, changed."""
    catalog = Catalog.load(Settings())
    entry = catalog.models[MODEL].model_copy(update={"id": name, **changes})
    return catalog.model_copy(update={"models": {**catalog.models, name: entry}})


def in_flight(engine: TorchEngine, *jobs: Job, controls: dict[str, JobControl] | None = None) -> dict[str, Ends]:
    """Submits the jobs, and starts the engine only then: all are there at its first look."""
    futures = {job.id: engine.submit(job, FILES, (controls or {}).get(job.id, JobControl())) for job in jobs}
    engine.start()
    return futures


def end(future: Ends) -> JobOutput | JobError:
    return future.result(HANG_S)


def wait_until(condition: Callable[[], object]) -> None:
    waited_s = 0.0
    while not condition():
        assert waited_s < HANG_S
        sleep(0.01)
        waited_s += 0.01


def at_step(step: int, then: Callable[[], object]) -> JobControl:
    """Calls `then` in the engine's thread, once so many steps of the job are done."""
    control = JobControl()

    def act() -> None:
        if control.step == step:
            then()

    control.on_step = act
    return control


def is_alone(output: JobOutput | JobError, job: Job) -> bool:
    """Whether each image of a job is what it is alone."""
    return all(np.abs(levels(output, index) - levels(image)).max() <= 1 for index, image in enumerate(alone(job)))


def broken(*_: Any) -> None:
    raise KeyError("broken")


# What comes out.


def test_images_of_a_job_are_many_seeds_whatever_shares_a_call(engine: TorchEngine, make_job: Make) -> None:
    job, control = make_job("many", n=5, seed=10), JobControl()
    (output,) = run_jobs(engine, job, control=control)
    assert isinstance(output, JobOutput)
    assert output.seeds == (10, 11, 12, 13, 14)
    assert (output.batch_size, output.media_type) == (4, "image/png")
    assert control.step == 2
    assert 0 < output.begun_at <= output.first_step_at
    assert min(output.encode_ms, output.denoise_ms, output.decode_ms) > 0
    assert is_alone(output, job)


def test_a_job_alone_shares_with_nobody_and_leaves_all_room(engine: TorchEngine, make_job: Make) -> None:
    room = engine.room(MODEL)
    assert room == Room(free=room.whole, whole=2 * 4 * IMAGE, jobs=0)
    (output,) = run_jobs(engine, make_job("a", nag=NAG))
    assert isinstance(output, JobOutput)
    assert output.batch_size == 1
    assert output.applied.applied
    assert engine.room(MODEL) == room


def test_formats_are_per_job(engine: TorchEngine, make_job: Make) -> None:
    outputs = run_jobs(engine, make_job("a", output_format="webp"), make_job("b", output_format="jpeg"))
    assert [output.media_type for output in outputs if isinstance(output, JobOutput)] == ["image/webp", "image/jpeg"]


@pytest.mark.parametrize("output_format", IMAGES)
def test_a_file_says_what_made_it_unless_it_is_not_to(engine: TorchEngine, make_job: Make, output_format: str) -> None:
    told = make_job("told", n=2, nag=NAG, output_format=output_format)
    outputs = run_jobs(engine, told, make_job("silent", output_format=output_format, embed_metadata=False))
    telling, silent = outputs
    assert isinstance(telling, JobOutput)
    assert isinstance(silent, JobOutput)
    for file, seed in zip(telling.files, telling.seeds, strict=True):
        assert isinstance(file, bytes)
        said = json.loads(read_back(file) or "")
        assert (said["prompt"], said["seed"], said["nag"]["negative_prompt"]) == ("a red circle", seed, "a red shape")
    assert isinstance(silent.files[0], bytes)
    assert read_back(silent.files[0]) is None


def test_a_text_without_room_is_left_out_with_a_warning(engine: TorchEngine, make_job: Make) -> None:
    (output,) = run_jobs(engine, make_job("a", prompt="x" * 17_000, output_format="jpeg"))
    assert isinstance(output, JobOutput)
    assert output.warnings[0] == "embed_metadata was left out: a jpeg has no room for so long a text"
    assert output.warnings[1].startswith("prompt: the model reads 75 of its 17000 tokens; ")
    assert isinstance(output.files[0], bytes)
    assert read_back(output.files[0]) is None


def test_a_codec_that_is_not_there_fails_its_job_alone_and_before_the_work(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch, calls: Calls
) -> None:
    monkeypatch.setitem(video.ENCODERS, "av1", ("libnone", {}))
    control = JobControl()
    futures = in_flight(make_engine(), make_job("a", video_codec="av1"), make_job("b"), controls={"a": control})
    assert (end(futures["a"]), control.step) == (UNWRITABLE, 0)
    assert isinstance(end(futures["b"]), JobOutput)
    assert all(call.jobs == ("b",) for call in calls.made)


def test_a_strict_job_fails_before_its_first_step_if_its_prompt_is_not_read_whole(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine = make_engine()
    prompt = "a red circle " * 40
    futures = in_flight(engine, make_job("strict", prompt=prompt, strict=True), make_job("lax", prompt=prompt))
    failed, output = end(futures["strict"]), end(futures["lax"])
    assert isinstance(failed, JobError)
    assert failed.code == PROMPT_TOO_LONG
    assert failed.message.startswith("prompt: the model reads 75 of its 120 tokens; ")
    assert failed.message.endswith('; shorten it, or send "strict": false')
    assert isinstance(output, JobOutput)
    assert [warning.partition(";")[0] for warning in output.warnings] == [
        "prompt: the model reads 75 of its 120 tokens"
    ]
    assert not any("strict" in jobs for jobs in calls.steps)


def test_prompts_are_encoded_once(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine = make_engine()
    engine.start()
    engine.load(MODEL).result(HANG_S)
    job = make_job("a", nag=NAG, n=3)
    (first,) = run_jobs(engine, job)
    encoded, hits, misses = (
        len(calls.of("text")), engine.recorder.of(Event.PROMPT_HIT), engine.recorder.of(Event.PROMPT_MISS)
    )  # fmt: skip
    assert encoded
    (again,) = run_jobs(engine, job)
    assert len(calls.of("text")) == encoded
    assert engine.recorder.of(Event.PROMPT_MISS) == misses
    assert engine.recorder.of(Event.PROMPT_HIT) - hits == 6  # a prompt and a negative prompt for each image
    assert difference(first, again) == 0


# What shares a call, joins and leaves.


@pytest.mark.slow
def test_a_mix_that_joins_leaves_and_fails_meanwhile_is_what_each_is_alone(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    """Two thirds arrive between steps of the first third; one job is cancelled in mid-step and one fails."""
    other = with_model("other", scheduler=Scheduler(name="FlowMatchEulerDiscreteScheduler", options={"shift": 1.0}))
    engine = make_engine(catalog=other, batch_size=6)
    mix = image_mix(make_job, MODEL)
    assert len(mix) >= 16
    cancelled = replace(make_job("cancelled", num_inference_steps=9, nag=NAG), tenant="b")
    failing = make_job("failing", num_inference_steps=9, guidance_scale=3.0)
    rescheduled = [
        make_job(f"other {seed}", model="other", seed=seed, num_inference_steps=5, nag=NAG) for seed in range(2)
    ]
    futures: dict[str, Ends] = {}
    waves = [mix[0::3], [*mix[1::3], cancelled, *rescheduled], [*mix[2::3], failing]]

    def submit(wave: list[Job], control: JobControl | None = None) -> None:
        for job in wave:
            own = leave if job is cancelled else fail if job is failing else control if job is mix[12] else JobControl()
            futures[job.id] = engine.submit(job, FILES, own or JobControl())

    leave = at_step(3, lambda: setattr(leave, "is_cancelled", True))
    fail = JobControl()
    arrive = JobControl()
    all_submitted = threading.Event()

    def on_step() -> None:  # of a job of 20 steps, which is in the first wave
        if arrive.step == 2:
            submit(waves[1])
        if arrive.step == 4:
            submit(waves[2])
            all_submitted.set()

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and "failing" in call.jobs and fail.step >= 2:
            raise ValueError("of one row")

    arrive.on_step, calls.before = on_step, spoil
    assert mix[12] in waves[0]
    submit(waves[0], arrive)
    engine.start()
    assert all_submitted.wait(HANG_S)
    with pytest.raises(JobCancelled):
        end(futures["cancelled"])
    failed = end(futures["failing"])
    assert isinstance(failed, JobError)
    assert (failed.code, leave.step, fail.step) == ("generation_failed", 3, 2)
    for job in mix:
        assert is_alone(end(futures[job.id]), job), job.id
    assert 3 <= max(map(len, calls.steps)) <= 6
    outputs = [end(futures[job.id]) for job in rescheduled]
    for output, job in zip(outputs, rescheduled, strict=True):
        assert isinstance(output, JobOutput)
        unlike = replace(job, request=replace(job.request, model=MODEL))
        assert not is_alone(output, unlike)  # the other scheduler was at work
        (solo,) = run_jobs(engine, job)
        assert difference(output, solo) <= 1
    for name in (MODEL, "other"):
        assert engine.room(name) == Room(free=12 * IMAGE, whole=12 * IMAGE, jobs=0)


def test_a_cancelled_job_is_in_no_later_call_and_the_next_step_uses_its_place(
    make_engine: MakeEngine, make_job: Make, calls: Calls, pipes: dict[str, Any]
) -> None:
    engine = make_engine(batch_size=3)
    jobs = {name: make_job(name, seed=seed, num_inference_steps=6) for seed, name in enumerate("abcd")}
    leave = at_step(2, lambda: setattr(leave, "is_cancelled", True))
    rows: list[int] = []

    def count_rows(_: Call) -> None:
        calls.before = lambda _: None
        pipes[MODEL].transformer.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
        )

    calls.before = count_rows
    futures = in_flight(engine, *jobs.values(), controls={"b": leave})
    with pytest.raises(JobCancelled):
        end(futures["b"])
    for name in "acd":
        assert is_alone(end(futures[name]), jobs[name])
    assert calls.steps[:3] == [("a", "b", "c"), ("a", "b", "c"), ("a", "c", "d")]
    assert not any("b" in jobs for jobs in calls.steps[2:])
    assert rows[: len(calls.steps)] == [len(jobs) for jobs in calls.steps]
    assert leave.step == 2


def test_a_job_that_is_cancelled_before_it_begins_never_does(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine, control = make_engine(), JobControl(is_cancelled=True)
    futures = in_flight(engine, make_job("a"), make_job("b"), controls={"a": control})
    with pytest.raises(JobCancelled):
        end(futures["a"])
    assert isinstance(end(futures["b"]), JobOutput)
    assert control.step == 0
    assert all(call.jobs == ("b",) for call in calls.made)
    assert engine.room(MODEL).free == engine.room(MODEL).whole


def test_an_image_that_fails_ends_its_job_and_no_other(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine, control = make_engine(), JobControl()
    jobs = [
        make_job(name, seed=seed, num_inference_steps=4, n=n) for seed, (name, n) in enumerate([("a", 1), ("b", 2)])
    ]

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and "b" in call.jobs and control.step == 2:
            raise ValueError("a red circle is not possible")

    calls.before = spoil
    futures = in_flight(engine, *jobs, controls={"b": control})
    assert end(futures["b"]) == JobError("generation_failed", "the model could not generate this (ValueError)")
    assert is_alone(end(futures["a"]), jobs[0])
    failed = calls.steps.index(("b",))
    assert not any("b" in jobs for jobs in calls.steps[failed + 2 :])  # its second image is left at once
    assert engine.recorder.of(Event.CALL_RAISED, MODEL) > 0
    assert engine.room(MODEL).free == engine.room(MODEL).whole


def test_pixels_that_are_not_numbers_fail_their_job_alone(
    make_engine: MakeEngine, make_job: Make, calls: Calls, pipes: dict[str, Any]
) -> None:
    engine = make_engine()

    def spoil(_: Any, args: Any, output: Any) -> None:
        output[0][calls.steps[-1].index("b")] = torch.nan

    def hook(_: Call) -> None:
        calls.before = lambda _: None
        pipes[MODEL].transformer.register_forward_hook(spoil)

    calls.before = hook
    futures = in_flight(engine, *(make_job(name) for name in "abc"))
    assert end(futures["b"]) == NAN
    for name in "ac":
        assert is_alone(end(futures[name]), make_job(name))
    assert engine.recorder.of(Event.NAN_OUTPUT) == 1
    assert calls.steps == [("a", "b", "c")] * 2


def test_a_short_job_ends_while_a_long_one_goes_on(
    make_engine: MakeEngine, make_job: Make, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives in the middle of the long one, joins its next step and is done before it."""
    monkeypatch.setattr(scheduler, "SHORT_S", 1e-9)  # the images of these tests are all short
    engine = make_engine()
    long, short = make_job("long", num_inference_steps=12), make_job("short", seed=2)
    futures: dict[str, Ends] = {}
    control = at_step(4, lambda: futures.update(short=engine.submit(short, {}, JobControl())))
    futures |= in_flight(engine, long, controls={"long": control})
    assert is_alone(end(futures["long"]), long)
    assert is_alone(end(futures["short"]), short)
    assert [{*jobs} for jobs in calls.steps] == [{"long"}] * 4 + [{"long", "short"}] * 2 + [{"long"}] * 6
    ended = calls.made.index(Call("decode", MODEL, ("short",)))
    assert calls.made[ended + 1 :] == [Call("denoiser", MODEL, ("long",))] * 6 + [Call("decode", MODEL, ("long",))]


@pytest.mark.slow
def test_an_image_of_one_model_runs_between_steps_of_another_s_video(
    make_engine: MakeEngine, make_job: Make, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SHORT_S", 1e-9)  # the images and videos of these tests are all short
    engine = make_engine()
    video = make_job(
        "video", model="shapes-wan", num_inference_steps=50, width=32, height=32, num_frames=5, fps=8,
        output_format="mp4", video_codec="h264",
    )  # fmt: skip
    image = make_job("image", num_inference_steps=4)
    futures: dict[str, Ends] = {}
    control = at_step(3, lambda: futures.update(image=engine.submit(image, {}, JobControl())))
    futures |= in_flight(engine, video, controls={"video": control})
    output = end(futures["video"])
    assert isinstance(output, JobOutput)
    assert output.media_type == "video/mp4"
    output.close()
    assert is_alone(end(futures["image"]), image)
    steps = calls.steps
    last_of_image = len(steps) - 1 - steps[::-1].index(("image",))
    assert steps.count(("image",)) == 4
    assert steps.count(("video",)) == 50
    assert steps[last_of_image:].count(("video",)) >= 10  # it did not wait for the video
    assert engine.recorder.of(Event.PREEMPTED, "shapes-wan") > 0
    assert set(engine.warm) == {MODEL, "shapes-wan"}


# Room.


@pytest.mark.slow
def test_room_is_taken_at_once_and_given_back_at_each_end(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine = make_engine()
    whole = 2 * 4 * IMAGE
    assert engine.room(MODEL) == Room(whole, whole, 0)
    frees: list[Room] = []
    engine.on_room = lambda: frees.append(engine.room(MODEL))
    leave = JobControl()

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and "bad" in call.jobs:
            leave.is_cancelled = True
            raise ValueError

    calls.before = spoil
    jobs = [make_job("n", n=2), make_job("cfg", guidance_scale=3.0), make_job("bad"), make_job("left")]
    futures = {job.id: engine.submit(job, {}, leave if job.id == "left" else JobControl()) for job in jobs}
    assert engine.room(MODEL) == Room(whole - 6 * IMAGE, whole, 4)  # CFG has two rows
    assert engine.room("shapes-sd") == Room(whole, whole, 4)
    engine.start()
    for name in ("n", "cfg"):
        assert isinstance(end(futures[name]), JobOutput)
    assert isinstance(end(futures["bad"]), JobError)
    with pytest.raises(JobCancelled):
        end(futures["left"])
    assert engine.room(MODEL) == Room(whole, whole, 0)
    assert len(frees) == 4
    assert frees[-1] == Room(whole, whole, 0)
    assert [room.jobs for room in frees] == [3, 2, 1, 0]


def test_a_job_that_another_worker_lost_leaves_no_room_beside_it(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine()
    lost = replace(make_job("lost"), attempts=2)
    futures = {"lost": engine.submit(lost, {}, JobControl())}
    for name in (MODEL, "shapes-sd"):
        assert engine.room(name) == Room(0, 2 * 4 * IMAGE, 1)
    engine.start()
    assert isinstance(end(futures["lost"]), JobOutput)
    assert engine.room(MODEL) == Room(2 * 4 * IMAGE, 2 * 4 * IMAGE, 0)
    engine.submit(replace(make_job("first"), attempts=1), {}, JobControl())
    assert engine.room(MODEL).free == 2 * 4 * IMAGE - IMAGE


# Memory.


def test_out_of_memory_halves_calls_now_and_later(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine = make_engine(batch_size=8)
    jobs = [make_job(f"{seed}", seed=seed, num_inference_steps=3) for seed in range(8)]

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and len(call.jobs) > 2:
            raise torch.OutOfMemoryError("no memory")

    calls.before = spoil
    futures = in_flight(engine, *jobs)
    for job in jobs:
        assert is_alone(end(futures[job.id]), job)
    sizes = [len(jobs) for jobs in calls.steps]
    assert sizes[:7] == [8, 4, 2, 2, 4, 2, 2]
    assert set(sizes[7:]) == {2}  # nothing is repeated but the one call
    assert sum(size for size in sizes if size <= 2) == 8 * 3
    assert engine.room(MODEL).whole == 2 * 2 * IMAGE
    assert engine.recorder.of(Event.OUT_OF_MEMORY) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "denoiser", "decode"])
def test_an_image_that_does_not_fit_fails_alone(
    make_engine: MakeEngine, make_job: Make, calls: Calls, kind: str
) -> None:
    engine = make_engine()

    def spoil(call: Call) -> None:
        if call.kind == kind and "large" in call.jobs:
            raise torch.OutOfMemoryError("no memory")

    calls.before = spoil
    futures = in_flight(engine, make_job("large", n=2, prompt="a large circle"), make_job("b"))
    assert end(futures["large"]) == OUT_OF_MEMORY
    assert is_alone(end(futures["b"]), make_job("b"))
    assert engine.room(MODEL).free == engine.room(MODEL).whole


@pytest.mark.slow
def test_an_image_without_memory_beside_others_is_tried_again_alone(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine = make_engine()
    jobs = [make_job("large", num_inference_steps=3), make_job("b", num_inference_steps=6)]
    futures: dict[str, Ends] = {}
    rooms: list[int] = []

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and "large" in call.jobs and not futures["b"].done():
            raise torch.OutOfMemoryError("no memory")

    calls.before = spoil
    control = at_step(4, lambda: rooms.append(engine.room(MODEL).free))
    for job in jobs:
        futures[job.id] = engine.submit(job, {}, control if job.id == "b" else JobControl())
    encoding = engine._encoding
    engine._encoding = InPlace()  # type: ignore[assignment]  # so that the future is done when the last call of its job is
    engine.start()
    for job in jobs:
        assert is_alone(end(futures[job.id]), job)
    encoding.shutdown()
    assert rooms == [0]  # nothing more is to be claimed meanwhile
    decoded = calls.made.index(Call("decode", MODEL, ("b",)))
    assert [call.jobs for call in calls.made[decoded + 1 :]] == [("large",)] * 4


class InPlace:
    """An executor whose calls are done when they are submitted."""

    def submit(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)

    def shutdown(self, wait: bool = True) -> None:
        """Nothing is under way."""


@pytest.mark.slow
def test_idle_models_go_before_an_image_fails(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine = make_engine(catalog=with_model("other"))
    assert isinstance(end(in_flight(engine, make_job("a", model="other"))["a"]), JobOutput)

    def spoil(call: Call) -> None:
        if call.kind == "denoiser" and "other" in engine.warm:
            raise torch.OutOfMemoryError("no memory")

    calls.before = spoil
    assert is_alone(run_jobs(engine, make_job("b"))[0], make_job("b"))
    assert engine.warm == (MODEL,)
    assert engine.recorder.of(Event.MODEL_EVICTED, "other") == 1


@pytest.mark.slow
def test_two_models_take_turns_in_a_small_memory(make_engine: MakeEngine, make_job: Make) -> None:
    """Room is made before a model is loaded, never by a load that fails: nothing is loaded twice."""
    size = model_size(with_model("other").models[MODEL])
    assert size is not None
    engine = make_engine(catalog=with_model("other"), model_memory_bytes=round(size.loaded_bytes * 1.5))
    assert engine.fits(MODEL)
    stages: list[tuple[str, ...]] = []
    engine.states.on_change = lambda: stages.append(
        tuple(engine.states.snapshot().get(name, ModelState()).stage for name in (MODEL, "other"))
    )
    engine.start()
    for name in (MODEL, "other", MODEL):
        assert isinstance(run_jobs(engine, make_job("a", model=name))[0], JobOutput)
        assert not engine.fits("other")
    assert stages == [
        ("loading", "cold"), ("warm", "cold"), ("warm", "loading"), ("cold", "loading"), ("cold", "warm"),
        ("loading", "warm"), ("loading", "cold"), ("warm", "cold"),
    ]  # fmt: skip
    assert engine.recorder.of(Event.MODEL_LOADED) == 3


def test_a_job_waits_until_its_model_has_room(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    size = model_size(with_model("other").models[MODEL])
    assert size is not None
    engine = make_engine(catalog=with_model("other"), model_memory_bytes=round(size.loaded_bytes * 1.5))
    leave = JobControl()
    rooms: list[int] = []

    def note_room() -> None:
        rooms.append(engine.room(MODEL).free)
        leave.is_cancelled = True

    jobs = [make_job("a", num_inference_steps=4), make_job("b", model="other"), make_job("left", model="other")]
    futures = in_flight(engine, *jobs, controls={"a": at_step(2, note_room), "left": leave})
    with pytest.raises(JobCancelled):
        end(futures["left"])
    for name in "ab":
        assert isinstance(end(futures[name]), JobOutput)
    assert rooms == [0]
    assert calls.steps == [("a",)] * 4 + [("b",)] * 2
    assert engine.warm == ("other",)
    assert engine.room(MODEL).free == engine.room(MODEL).whole


# Models.


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds the reading of every file of a model until it is set."""
    go_on, read = threading.Event(), FileReader._read_file

    def wait_and_read(self: FileReader, path: Path) -> None:
        assert go_on.wait(HANG_S)
        read(self, path)

    monkeypatch.setattr(FileReader, "_read_file", wait_and_read)
    yield go_on
    go_on.set()


def test_jobs_of_a_warm_model_end_while_another_s_files_are_read(
    make_engine: MakeEngine, make_job: Make, reading: threading.Event
) -> None:
    engine = make_engine(catalog=with_model("other"))
    engine.start()
    run_jobs(engine, make_job("first"))
    cold = engine.submit(make_job("cold", model="other"), FILES, JobControl())
    wait_until(lambda: engine.states.snapshot().get("other", ModelState()).stage == "loading")
    for name in "ab":
        assert is_alone(run_jobs(engine, make_job(name))[0], make_job(name))
    assert engine.room(MODEL).free == engine.room(MODEL).whole
    assert not cold.done()
    assert engine.warm == (MODEL,)
    reading.set()
    assert isinstance(end(cold), JobOutput)
    assert set(engine.warm) == {MODEL, "other"}


def test_a_model_is_not_built_while_another_thread_computes(
    make_engine: MakeEngine, make_job: Make, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do computations begin there: torch's default dtype is another one meanwhile."""
    built: list[bool] = []

    def note(entry: Model, device: torch.device) -> Any:
        built.append(engine._is_busy_aside)
        return load(entry, device)

    monkeypatch.setattr(pipelines, "load", note)
    engine = make_engine(catalog=with_model("other"), overlap="on")
    decodes = threading.Event()

    def wait(call: Call) -> None:
        if call.kind == "decode" and call.jobs == ("a",):
            assert decodes.wait(HANG_S)

    calls.before = wait
    engine.start()
    run_jobs(engine, make_job("first"))
    warm = engine.submit(make_job("a"), FILES, JobControl())
    wait_until(lambda: engine._is_busy_aside)
    cold = engine.submit(make_job("b", model="other"), FILES, JobControl())
    wait_until(lambda: engine._admission.needs_lane_idle)
    assert built == [False]
    decodes.set()
    for future in (warm, cold):
        assert isinstance(end(future), JobOutput)
    assert built == [False, False]


def test_a_model_whose_jobs_are_cancelled_while_its_files_are_read_is_not_loaded(
    make_engine: MakeEngine, make_job: Make, reading: threading.Event
) -> None:
    engine = make_engine(catalog=with_model("other"))
    engine.start()
    run_jobs(engine, make_job("first"))
    control = JobControl()
    cold = engine.submit(make_job("cold", model="other"), FILES, control)
    wait_until(lambda: engine.states.snapshot().get("other", ModelState()).stage == "loading")
    control.is_cancelled = True
    with pytest.raises(JobCancelled):
        end(cold)
    reading.set()
    wait_until(lambda: engine.states.snapshot()["other"].stage == "cold")
    assert engine.recorder.of(Event.MODEL_LOADED) == 1


def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_no_others(
    make_engine: MakeEngine, make_job: Make, tmp_path: Path
) -> None:
    engine = make_engine(catalog=with_model("broken", repository=str(tmp_path)))
    engine.start()
    for _ in range(2):
        failed, output = run_jobs(engine, make_job("a", model="broken"), make_job("b"))
        assert isinstance(failed, JobError)
        assert failed.code == "model_unavailable"
        assert str(tmp_path) not in failed.message
        assert isinstance(output, JobOutput)
    assert engine.recorder.of(Event.MODEL_FAILED) == 1  # the second was not worth another try so soon
    assert engine.room("broken").free == engine.room("broken").whole


@pytest.mark.parametrize(("batch_size", "images"), [(1, 2), (8, 16), (32, 40)])
def test_room_is_a_full_call_and_some_images_that_wait_for_it(
    make_engine: MakeEngine, batch_size: int, images: int
) -> None:
    engine = make_engine(batch_size=batch_size)
    assert engine.room(MODEL) == Room(images * IMAGE, images * IMAGE, 0)


def test_the_batch_size_is_measured_and_bounded_by_the_setting(make_engine: MakeEngine) -> None:
    engine = make_engine(batch_budget="measured", batch_size=4)
    assert engine.warm == ()
    engine.start()
    engine.load(MODEL).result(HANG_S)
    assert engine.warm == (MODEL,)
    assert engine.room(MODEL).whole in (2 * images * IMAGE for images in (1, 2, 4))


def test_a_model_that_cannot_make_one_image_is_not_warm(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_broken(entry: Model, device: torch.device) -> Any:
        pipe = load(entry, device)
        if entry.id == MODEL:
            pipe.transformer.register_forward_pre_hook(broken)
        return pipe

    monkeypatch.setattr(pipelines, "load", load_broken)
    engine = make_engine()
    engine.start()
    with pytest.raises(KeyError):
        engine.load(MODEL).result(HANG_S)
    assert engine.warm == ()
    assert isinstance(run_jobs(engine, make_job("a", model="shapes-sd"))[0], JobOutput)


def test_a_model_loaded_by_a_job_is_measured_once_nothing_is_in_flight(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def load_small(entry: Model, device: torch.device) -> Any:
        pipe = load(entry, device)

        def check(_: Any, args: Any, kwargs: Any) -> None:
            rows.append(len(kwargs["hidden_states"]))
            if rows[-1] > 2:
                raise torch.OutOfMemoryError("no memory")

        pipe.transformer.register_forward_pre_hook(check, with_kwargs=True)
        return pipe

    monkeypatch.setattr(pipelines, "load", load_small)
    engine = make_engine(batch_budget="measured", batch_size=64)
    assert engine.room(MODEL).whole == 2 * IMAGE  # one image, until it is known that more are faster
    seen: list[list[int]] = []
    ended = at_step(2, lambda: seen.append(list(rows)))
    assert isinstance(end(in_flight(engine, make_job("a"), controls={"a": ended})["a"]), JobOutput)
    wait_until(lambda: 2 in rows)
    assert seen == [[1, 1]]  # the job's own steps alone came before its end


def test_a_model_that_cannot_be_measured_goes_on_serving(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def fail(*_: Any) -> None:
        tried.set()
        raise KeyError("broken")

    monkeypatch.setattr("app.worker.models.warmup.trial_jobs", fail)
    engine = make_engine(batch_budget="measured")
    engine.start()
    assert isinstance(run_jobs(engine, make_job("a"))[0], JobOutput)
    assert tried.wait(HANG_S)
    assert isinstance(run_jobs(engine, make_job("b"))[0], JobOutput)
    assert engine.warm == (MODEL,)


def test_a_download_that_fails_fails_the_jobs_with_its_reason(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_download(entry: Model, on_progress: Any) -> None:
        on_progress(1, 4)
        seen.append(engine.states.snapshot()["far"])
        raise RepositoryAccessError("far", "someone/far asks for a login")

    seen: list[ModelState] = []
    failed = threading.Event()
    monkeypatch.setattr("app.worker.models.downloads.download", refuse_download)
    engine = make_engine(catalog=with_model("far", repository="someone/far"))
    engine.states.on_change = lambda: failed.set() if engine.states.snapshot()["far"].error else None
    assert (engine.takes_jobs(MODEL), engine.takes_jobs("far")) == (True, False)
    engine.download("far")
    assert failed.wait(HANG_S)
    assert seen == [ModelState("downloading", 1, 4)]
    assert engine.takes_jobs("far")  # to fail them
    assert end(in_flight(engine, make_job("a", model="far"))["a"]) == JobError(
        "model_unavailable", "the model could not be downloaded (someone/far asks for a login)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["model", "group"])
def test_offloaded_models_make_the_same_images(
    make_engine: MakeEngine, make_job: Make, calls: Calls, offload: str
) -> None:
    engine = make_engine(catalog=with_model("offloaded", offload=offload))
    jobs = [
        make_job("a", model="offloaded", nag=NAG),
        make_job("b", model="offloaded", num_inference_steps=4, guidance_scale=3.0),
    ]
    futures = in_flight(engine, *jobs)
    for job in jobs:
        assert is_alone(end(futures[job.id]), replace(job, request=replace(job.request, model=MODEL)))
    assert max(map(len, calls.steps)) == 2
    (again,) = run_jobs(engine, jobs[0])
    assert difference(end(futures["a"]), again) <= 1


# Beside the denoiser, and the end.


def test_steps_go_on_while_another_image_is_decoded(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine = make_engine(overlap="on")
    jobs = [make_job("a", seed=1, nag=NAG), make_job("b", seed=3, num_inference_steps=6, guidance_scale=3.0, nag=NAG)]
    has_stepped = threading.Event()

    def wait(call: Call) -> None:
        if call == Call("decode", MODEL, ("a",)):
            assert has_stepped.wait(HANG_S)

    calls.before = wait
    futures = in_flight(engine, *jobs, controls={"b": at_step(5, has_stepped.set)})
    for job in jobs:
        assert is_alone(end(futures[job.id]), job)


@pytest.mark.slow
def test_an_overlapping_engine_makes_the_same_images(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine(overlap="on", batch_size=8)
    mix = [job for job in image_mix(make_job, MODEL) if job.request.steps < 10]
    futures = in_flight(engine, *mix)
    for job in mix:
        assert is_alone(end(futures[job.id]), job), job.id


@pytest.mark.slow
def test_an_image_without_memory_beside_a_decode_is_tried_again_after_it(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine = make_engine(overlap="on")
    jobs = [make_job("a", seed=1), make_job("b", seed=2, num_inference_steps=5)]
    decoding, refused = threading.Event(), threading.Event()

    def decode_or_refuse(call: Call) -> None:
        if call == Call("decode", MODEL, ("a",)):
            decoding.set()
            assert refused.wait(HANG_S)
            sleep(0.05)  # the engine looks for work meanwhile, and must leave the refused call alone
            decoding.clear()
        elif call.kind == "denoiser" and decoding.is_set():
            refused.set()
            raise torch.OutOfMemoryError("no memory beside what is being decoded")
        elif call.jobs == ("b",) and call.kind == "denoiser" and not refused.is_set():
            assert decoding.wait(HANG_S)
            refused.set()
            raise torch.OutOfMemoryError("no memory beside what is being decoded")

    calls.before = decode_or_refuse
    futures = in_flight(engine, *jobs)
    for job in jobs:
        assert is_alone(end(futures[job.id]), job)
    assert engine.room(MODEL).whole == 2 * 4 * IMAGE


@pytest.mark.parametrize("overlap", ["off", "on"])
def test_a_device_that_has_failed_for_good_ends_every_job_with_its_error(
    make_engine: MakeEngine, make_job: Make, calls: Calls, monkeypatch: pytest.MonkeyPatch, overlap: str
) -> None:
    engine = make_engine(overlap=overlap)
    error = RuntimeError("CUDA error: an illegal memory access was encountered")

    def fail(_: Any) -> None:
        raise error

    def spoil(call: Call) -> None:
        if call.kind == "decode":
            monkeypatch.setattr(memory, "free", fail)
            raise ValueError("the first sign of it")

    calls.before = spoil
    jobs = [make_job("a"), make_job("b", num_inference_steps=9), make_job("c", model="shapes-sd", n=2)]
    futures = in_flight(engine, *jobs)
    for job in jobs:
        assert futures[job.id].exception(HANG_S) is error
    assert engine.submit(make_job("late"), {}, JobControl()).exception(HANG_S) is error
    assert engine.load(MODEL).exception(HANG_S) is error


def test_closing_cancels_what_is_in_flight_after_the_call_under_way(
    make_engine: MakeEngine, make_job: Make, calls: Calls
) -> None:
    engine = make_engine()
    begun, closed = threading.Event(), threading.Event()

    def wait(call: Call) -> None:
        if call.kind == "denoiser":
            begun.set()
            assert closed.wait(HANG_S)

    calls.before = wait
    futures = in_flight(engine, make_job("a", n=2), make_job("b", num_inference_steps=9))
    assert begun.wait(HANG_S)
    engine.close()
    late = engine.submit(make_job("late"), {}, JobControl())
    closed.set()
    ended: list[Future[Any]] = [*futures.values(), late, engine.load(MODEL)]
    for future in ended:
        with pytest.raises(JobCancelled):
            future.result(HANG_S)
    assert len(calls.steps) == 1


def test_a_call_that_takes_long_is_seen_from_outside(make_engine: MakeEngine, make_job: Make, calls: Calls) -> None:
    engine = make_engine()
    begun, released = threading.Event(), threading.Event()

    def wait(call: Call) -> None:
        if call.kind == "denoiser":
            begun.set()
            assert released.wait(HANG_S)

    assert engine.stuck_s == 0
    calls.before = wait
    futures = in_flight(engine, make_job("a"))
    assert begun.wait(HANG_S)
    earlier = engine.stuck_s
    assert 0 < earlier < engine.stuck_s
    released.set()
    assert isinstance(end(futures["a"]), JobOutput)
    wait_until(lambda: engine.stuck_s == 0)
