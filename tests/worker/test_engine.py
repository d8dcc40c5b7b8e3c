from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.catalog import Catalog, Model
from app.formats import IMAGES
from app.jobs import Guidance, Job, JobError
from app.queue.registry import ModelState
from app.settings import Settings
from app.worker import pipelines, video
from app.worker.engine import UNWRITABLE, TorchEngine
from app.worker.errors import RepositoryAccessError
from app.worker.model_size import model_size
from app.worker.outcome import NAN, OUT_OF_MEMORY
from app.worker.pipelines import load
from app.worker.recorder import Event, Recorder
from app.worker.work import Control, Made, Stopped
from tests.pictures import read_back

MODEL = "shapes-flux"
PICTURE = 64 * 64  # units of Generation.cost
Make = Callable[..., Job]
MakeEngine = Callable[..., TorchEngine]
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


@pytest.fixture
def make_engine() -> MakeEngine:
    """`make_engine(batch_size=8, …)`: an engine of the test's own; keywords change its settings."""

    def make(catalog: Catalog | None = None, **changes: Any) -> TorchEngine:
        settings = Settings(**{"device": "cpu", "batch_size": 4, "batch_budget": "fixed", **changes})
        return TorchEngine(catalog or Catalog.load(settings), settings, Recorder())

    return make


def with_model(name: str, **changes: Any) -> Catalog:
    """The catalog with a copy of the embedded model's entry, changed."""
    catalog = Catalog.load(Settings())
    entry = catalog.models[MODEL].model_copy(update={"id": name, **changes})
    return catalog.model_copy(update={"models": {**catalog.models, name: entry}})


@contextmanager
def hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def cpu_says_no_memory(_: str) -> Exception:
    return RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8000000000000 bytes.")


def no_memory_beyond(engine: TorchEngine, rows: int, seen: list[int], error: Callable[[str], Exception]) -> Any:
    def count(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(len(kwargs["hidden_states"]))
        if seen[-1] > rows:
            raise error("no memory")

    return engine.pipe(MODEL).transformer.register_forward_pre_hook(count, with_kwargs=True)


def pixels(made: Made | JobError, index: int = 0) -> np.ndarray:
    assert isinstance(made, Made)
    return np.asarray(Image.open(io.BytesIO(made.files[index])), dtype=np.int16)


def test_n_pictures_are_n_seeds_whatever_the_batch(engine: TorchEngine, make_job: Make) -> None:
    job = make_job("many", n=5, seed=10)
    control = Control()
    made = engine.run([make_job("other"), job], control)["many"]
    assert isinstance(made, Made)
    assert made.seeds == (10, 11, 12, 13, 14)
    assert (made.batch_size, made.media_type) == (4, "image/png")
    assert control.step == 2
    for index in (0, 4):
        alone = engine.run([make_job("alone", seed=10 + index)], Control())["alone"]
        assert np.abs(pixels(alone) - pixels(made, index)).max() <= 1


def test_formats_are_per_job(engine: TorchEngine, make_job: Make) -> None:
    made = engine.run([make_job("a", output_format="webp"), make_job("b", output_format="jpeg")], Control())
    assert [each.media_type for each in made.values() if isinstance(each, Made)] == ["image/webp", "image/jpeg"]


@pytest.mark.parametrize("output_format", IMAGES)
def test_a_file_says_what_made_it_unless_it_is_not_to(engine: TorchEngine, make_job: Make, output_format: str) -> None:
    nag = Guidance(5.0, 2.5, 0.25, 1.0, "a red shape")
    told = make_job("told", n=2, nag=nag, output_format=output_format)
    made = engine.run([told, make_job("silent", output_format=output_format, embed_metadata=False)], Control())
    telling, silent = made["told"], made["silent"]
    assert isinstance(telling, Made)
    assert isinstance(silent, Made)
    for file, seed in zip(telling.files, telling.seeds, strict=True):
        said = json.loads(read_back(file) or "")
        assert (said["prompt"], said["seed"], said["nag"]["negative_prompt"]) == ("a red circle", seed, "a red shape")
    assert read_back(silent.files[0]) is None


def test_a_text_without_room_is_left_out_and_said(engine: TorchEngine, make_job: Make) -> None:
    made = engine.run([make_job("a", prompt="x" * 17_000, output_format="jpeg")], Control())["a"]
    assert isinstance(made, Made)
    assert made.warnings[0] == "embed_metadata was left out: a jpeg has no room for so long a text"
    assert made.warnings[1].startswith("prompt: the model reads 75 of its 17000 tokens; ")
    assert read_back(made.files[0]) is None


def test_a_codec_that_is_not_there_fails_its_job_alone_and_before_the_work(
    engine: TorchEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(video.ENCODERS, "av1", ("libnone", {}))
    control = Control()
    made = engine.run([make_job("a", video_codec="av1")], control)
    assert (made, control.step) == ({"a": UNWRITABLE}, 0)
    made = engine.run([make_job("a", video_codec="av1"), make_job("b")], Control())
    assert made["a"] == UNWRITABLE
    assert isinstance(made["b"], Made)


def test_a_stopped_batch_is_left_between_two_steps(engine: TorchEngine, make_job: Make) -> None:
    control = Control(stopping=True)
    with pytest.raises(Stopped):
        engine.run([make_job("a")], control)
    assert control.step == 0


def test_pixels_that_are_not_numbers_fail_their_job_alone(engine: TorchEngine, make_job: Make) -> None:
    def spoil(_: Any, args: Any, output: Any) -> None:
        output[0][1] = torch.nan

    before = engine.recorder.of(Event.NAN_OUTPUT)
    with hooked(engine.pipe(MODEL).transformer.register_forward_hook(spoil)):
        made = engine.run([make_job(name) for name in "abc"], Control())
    assert made["b"] == NAN
    assert isinstance(made["a"], Made)
    assert isinstance(made["c"], Made)
    assert engine.recorder.of(Event.NAN_OUTPUT) - before == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, cpu_says_no_memory])
def test_out_of_memory_halves_the_batch_now_and_later(
    make_engine: MakeEngine, make_job: Make, error: Callable[[str], Exception]
) -> None:
    engine = make_engine(batch_size=8)
    sizes: list[int] = []
    jobs = [make_job(f"{i}", seed=i) for i in range(7)]
    expected = engine.run(jobs, Control())
    with hooked(no_memory_beyond(engine, 2, sizes, error)):
        made = engine.run(jobs, Control())
        assert {size for size in sizes if size <= 2} == {1, 2}
        assert (engine.budget(MODEL), engine.recorder.of(Event.OOM_HALVED)) == (PICTURE, 3)
        sizes.clear()
        engine.run(jobs[:3], Control())
        assert set(sizes) == {1}
    for name, each in made.items():
        assert np.abs(pixels(each) - pixels(expected[name])).max() <= 1


def test_one_picture_that_does_not_fit_fails_alone(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine()
    with hooked(no_memory_beyond(engine, 0, [], torch.OutOfMemoryError)):
        assert engine.run([make_job("a", n=2)], Control())["a"] == OUT_OF_MEMORY
    assert isinstance(engine.run([make_job("b")], Control())["b"], Made)


def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_no_others(
    make_engine: MakeEngine, make_job: Make, tmp_path: Path
) -> None:
    engine = make_engine(catalog=with_model("broken", repository=str(tmp_path)))
    for _ in range(2):
        failed = engine.run([make_job("a", model="broken")], Control())["a"]
        assert isinstance(failed, JobError)
        assert failed.code == "model_unavailable"
        assert str(tmp_path) not in failed.message
    assert engine.recorder.of(Event.MODEL_FAILED) == 1  # the second was not worth another try so soon
    assert isinstance(engine.run([make_job("b")], Control())["b"], Made)


def test_the_budget_is_measured_and_bounded_by_the_setting(make_engine: MakeEngine) -> None:
    engine = make_engine(batch_budget="measured", batch_size=4)
    engine.load(MODEL)
    assert engine.warm == (MODEL,)
    assert engine.budget(MODEL) in (PICTURE, 2 * PICTURE, 4 * PICTURE)


def test_a_model_that_cannot_make_one_picture_is_not_warm(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(entry: Model, device: torch.device) -> Any:
        pipe = load(entry, device)
        pipe.transformer.register_forward_pre_hook(lambda *_: {}["broken"])
        return pipe

    monkeypatch.setattr(pipelines, "load", broken)
    engine = make_engine()
    with pytest.raises(KeyError):
        engine.load(MODEL)
    assert engine.warm == ()


def test_batches_overlap_and_come_out_as_they_do_alone(make_engine: MakeEngine, make_job: Make) -> None:
    """The second batch is denoised, guided and all, while the first one waits in its decoding."""
    engine = make_engine(overlap="on")
    first = [make_job("a", seed=1, nag=NAG), make_job("b", seed=2)]
    second = [make_job("c", seed=3, num_inference_steps=4, guidance_scale=3.0, nag=NAG)]
    alone = engine.run(first, Control()) | engine.run(second, Control())
    steps: list[int] = []
    vae = engine.pipe(MODEL).vae

    def wait(_: Any, args: Any) -> None:
        handle.remove()
        while not steps or steps[-1] < 3:  # the last step moves on to the stage that is taken here
            steps.append(control.step)
            sleep(0.001)

    handle = vae.decoder.register_forward_pre_hook(wait)
    denoised = threading.Event()
    control = Control()
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(engine.run, first, Control(on_denoised=denoised.set))
        assert denoised.wait(60)
        two = threads.submit(engine.run, second, control)
        together = one.result(60) | two.result(60)
    assert {name: pixels(each).tolist() for name, each in together.items()} == {
        name: pixels(each).tolist() for name, each in alone.items()
    }


def test_a_row_without_memory_beside_a_decode_is_tried_again_alone(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine(overlap="on")
    pipe = engine.pipe(MODEL)
    decoding, refused, denoised = threading.Event(), threading.Event(), threading.Event()

    def decode(_: Any, args: Any) -> None:
        if not refused.is_set():  # the first batch alone waits for the second one's failure
            decoding.set()
            assert refused.wait(60)
            decoding.clear()

    def refuse(_: Any, args: Any) -> None:
        if decoding.is_set():
            refused.set()
            raise torch.OutOfMemoryError("no memory beside what is being decoded")

    with (
        hooked(pipe.vae.decoder.register_forward_pre_hook(decode)),
        hooked(pipe.transformer.register_forward_pre_hook(refuse)),
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(engine.run, [make_job("a")], Control(on_denoised=denoised.set))
        assert denoised.wait(60)
        assert decoding.wait(60)
        second = threads.submit(engine.run, [make_job("b")], Control())
        assert isinstance(second.result(60)["b"], Made)
        assert isinstance(first.result(60)["a"], Made)
    assert engine.budget(MODEL) == 4 * PICTURE  # one row was no batch to be made smaller


def test_a_model_loaded_by_a_job_is_measured_afterwards(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine(batch_budget="measured", batch_size=64)
    engine.run([make_job("a")], Control())
    assert (engine.is_measured(MODEL), engine.budget(MODEL)) == (False, 64 * PICTURE)
    with hooked(no_memory_beyond(engine, 2, [], torch.OutOfMemoryError)):
        engine.measure(MODEL)
    assert engine.is_measured(MODEL)
    assert engine.budget(MODEL) in (PICTURE, 2 * PICTURE)
    assert make_engine(batch_budget="fixed").is_measured(MODEL)  # the setting is the budget


def test_a_model_that_cannot_be_measured_goes_on_serving(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine(batch_budget="measured")
    engine.run([make_job("a")], Control())
    with hooked(engine.pipe(MODEL).transformer.register_forward_pre_hook(lambda *_: {}["broken"])):
        engine.measure(MODEL)
    assert (engine.is_measured(MODEL), engine.warm) == (True, (MODEL,))


def test_two_models_take_turns_in_a_small_memory(make_engine: MakeEngine, make_job: Make) -> None:
    """Room is made before a model is loaded, never by a load that fails: nothing is loaded twice."""
    entry = with_model("other").models[MODEL]
    size = model_size(entry)
    assert size is not None
    engine = make_engine(catalog=with_model("other"), model_memory_bytes=round(size.loaded_bytes * 1.5))
    assert engine.fits(MODEL)
    stages: list[tuple[str, str]] = []
    engine.states.on_change = lambda: stages.append(
        tuple(engine.states.snapshot().get(name, ModelState()).stage for name in (MODEL, "other"))
    )
    for name in (MODEL, "other", MODEL):
        assert isinstance(engine.run([make_job("a", model=name)], Control())["a"], Made)
        assert not engine.fits("other")
    assert stages == [
        ("loading", "cold"), ("warm", "cold"), ("cold", "cold"), ("cold", "loading"), ("cold", "warm"),
        ("cold", "cold"), ("loading", "cold"), ("warm", "cold"),
    ]  # fmt: skip
    assert engine.recorder.of(Event.MODEL_LOADED) == 3


def test_a_download_that_fails_fails_the_jobs_with_its_reason(
    make_engine: MakeEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(entry: Model, on_progress: Any) -> None:
        on_progress(1, 4)
        seen.append(engine.states.snapshot()["far"])
        raise RepositoryAccessError("far", "someone/far asks for a login")

    seen: list[ModelState] = []
    failed = threading.Event()
    monkeypatch.setattr("app.worker.downloads.download", refuse)
    engine = make_engine(catalog=with_model("far", repository="someone/far"))
    engine.states.on_change = lambda: failed.set() if engine.states.snapshot()["far"].error else None
    assert (engine.takes_jobs(MODEL), engine.takes_jobs("far")) == (True, False)
    engine.download("far")
    assert failed.wait(60)
    assert seen == [ModelState("downloading", 1, 4)]
    assert engine.takes_jobs("far")  # to fail them
    assert engine.run([make_job("a", model="far")], Control())["a"] == JobError(
        "model_unavailable", "the model could not be downloaded (someone/far asks for a login)"
    )


def test_prompts_are_encoded_once(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine()
    job = make_job("a", nag=NAG, n=3)
    first = engine.run([job], Control())["a"]
    asked = engine.recorder.of(Event.PROMPT_HIT, MODEL), engine.recorder.of(Event.PROMPT_MISS, MODEL)
    assert asked == (4, 2)
    again = engine.run([job], Control())["a"]
    assert (engine.recorder.of(Event.PROMPT_HIT), engine.recorder.of(Event.PROMPT_MISS)) == (10, 2)
    assert np.array_equal(pixels(first), pixels(again))
