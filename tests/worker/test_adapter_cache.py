"""LoRAs on the device within a budget: held while a job uses them, read while others denoise, right however many."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from prometheus_client import generate_latest

from app.catalog import Catalog, Model
from app.jobs import Job, JobError, LoraUse
from app.loading.errors import LoraError
from app.settings import Settings
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.torch_engine import TorchEngine
from app.worker.models.adapter_cache import AdapterCache
from app.worker.models.model_cache import Deferral
from app.worker.protocol import JobCancelled, JobControl
from app.worker.recorder import Event, Recorder
from tests.limits import HANG_S
from tests.metrics_text import of_text
from tests.worker.conftest import MODEL
from tests.worker.generate import CPU, difference, generate, run_jobs
from tests.worker.loras import add_loras, layers_of, write_lora
from tests.worker.mixes import NAG, loaded
from tests.worker.tiny_models import tiny_model

Make = Callable[..., Job]
MakeEngine = Callable[..., TorchEngine]
COUNT, FIT = 50, 3
SMALL = {"width": 16, "height": 16, "num_inference_steps": 1}


class Files:
    """LoRAs l0, l1, … in a folder; `before` is called ahead of each read."""

    def __init__(self, folder: Path, pipe: object, count: int) -> None:
        names = layers_of(pipe.transformer, "attn.to_q", "attn.to_out")  # type: ignore[attr-defined]
        self.paths = {
            f"l{i}": write_lora(folder / f"{i}.safetensors", pipe, {"transformer": names}, rank=2, seed=i)
            for i in range(count)
        }
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str], object] = lambda _: None

    def path(self, lora: str, model: Model) -> Path:
        self.before(lora)
        self.asked[lora] += 1
        if lora not in self.paths:
            raise LoraError(model.id, f"loras: {lora}: it was deleted")
        return self.paths[lora]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture
def files(folder: Path) -> Files:
    return Files(folder, loaded(MODEL).pipe, COUNT)


@pytest.fixture
def one_bytes(files: Files) -> Iterator[int]:
    """What one of the LoRAs takes."""
    cache = AdapterCache(CPU, 0, 2**30, files, Recorder(), lambda: None)
    model = loaded(MODEL)
    hold(cache, model, "l0")
    yield cache.resident_bytes
    cache.close()
    model.remove_adapter("l0")


def hold(cache: AdapterCache, model: SharedModel, *loras: str) -> None:
    """Acquires LoRAs, and waits until they are read."""
    waited_s = 0.0
    while not acquires(cache, model, *loras):
        assert waited_s < HANG_S
        sleep(0.01)
        waited_s += 0.01


def acquires(cache: AdapterCache, model: SharedModel, *loras: str) -> bool:
    """Acquires LoRAs. False if they are yet to be read."""
    try:
        cache.acquire(model, tuple(LoraUse(lora, 1.0) for lora in loras))
    except Deferral as deferral:
        if deferral.needs_room:
            raise
        return False
    return True


@pytest.fixture
def make_engine(files: Files, one_bytes: int) -> Iterator[MakeEngine]:
    """`make_engine(batch_size=8, …)`: an engine that is not started, with room for FIT of the LoRAs."""
    made: list[TorchEngine] = []

    def make(**changes: object) -> TorchEngine:
        settings = Settings(
            **{
                "device": "cpu", "batch_size": 4, "batch_budget": "fixed", "lora_memory_bytes": FIT * one_bytes,
                **changes,
            }  # type: ignore[arg-type]
        )  # fmt: skip
        made.append(TorchEngine(Catalog.load(settings), settings, Recorder(), files))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def uses(*loras: str) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(lora, 1.0) for lora in loras)


@pytest.mark.slow
def test_many_loras_in_room_for_three(
    make_engine: MakeEngine, files: Files, one_bytes: int, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, resident_bytes = make_engine(), []
    files.asked.clear()
    monkeypatch.setattr(engine.recorder, "lora_bytes", lambda _, count: resident_bytes.append(count))
    small = {"width": 32, "height": 32, "num_inference_steps": 1}
    jobs = [
        make_job(
            f"{i}",
            seed=i,
            loras=uses(*{f"l{i % COUNT}", f"l{7 * i % COUNT}"}),
            nag=NAG if i % 3 == 0 else None,
            **small,
        )
        for i in range(COUNT + 14)
    ]
    jobs += [make_job(f"plain {i}", seed=i, **small) for i in range(4)]
    engine.start()
    outputs = run_jobs(engine, *jobs)
    shared = loaded(MODEL)
    for job, output in zip(jobs, outputs, strict=True):
        ids = [use.id for use in job.request.loras]
        add_loras(shared, {lora: files.paths[lora] for lora in ids})
        assert difference(output, generate(shared, job)[0]) <= 1, job.id
        for lora in ids:
            shared.remove_adapter(lora)
    assert 0 < max(resident_bytes) <= FIT * one_bytes
    assert set(files.asked.values()) == {1}  # what was read stays in main memory
    recorder, used = engine.recorder, sum(len(job.request.loras) for job in jobs)
    assert recorder.of(Event.LORA_LOADED) + recorder.of(Event.LORA_HIT) == used
    assert recorder.of(Event.LORA_EVICTED) == recorder.of(Event.LORA_LOADED) - FIT


def test_a_lora_in_use_makes_no_room(make_engine: MakeEngine, make_job: Make) -> None:
    engine, steps = make_engine(), []
    jobs = [
        make_job("long", loras=uses("l0", "l1", "l2"), num_inference_steps=6),
        make_job("other", loras=uses("l3"), num_inference_steps=2),
        make_job("same", loras=uses("l1"), num_inference_steps=2),
    ]
    controls = [JobControl(on_step=lambda job=job: steps.append(job.id)) for job in jobs]  # type: ignore[misc]
    engine.start()
    futures = [engine.submit(jobs[0], {}, controls[0])]
    while controls[0].step == 0:
        sleep(0.001)
    futures += [engine.submit(job, {}, control) for job, control in zip(jobs[1:], controls[1:], strict=True)]
    for future in futures:
        assert not isinstance(future.result(HANG_S), JobError)
    assert [step for step in steps if step != "same"] == ["long"] * 6 + ["other"] * 2
    assert engine.recorder.of(Event.LORA_EVICTED) >= 1


def test_more_loras_than_there_is_room_for_are_refused(make_engine: MakeEngine, make_job: Make, one_bytes: int) -> None:
    engine = make_engine()
    engine.start()
    (output,) = run_jobs(engine, make_job("a", loras=uses("l0", "l1", "l2", "l3")))
    message = f"loras: those of the request take {4 * one_bytes} bytes, and NAG_LORA_MEMORY_BYTES is {3 * one_bytes}"
    assert output == JobError("lora_unavailable", message)


def test_a_lora_that_cannot_be_had_fails_its_own_job(make_engine: MakeEngine, make_job: Make) -> None:
    engine = make_engine()
    engine.start()
    failed, other = run_jobs(engine, make_job("a", loras=uses("l0", "gone")), make_job("b", loras=uses("l0")))
    assert failed == JobError("lora_unavailable", "loras: gone: it was deleted")
    assert not isinstance(other, JobError)


def test_others_denoise_while_a_file_is_read(make_engine: MakeEngine, files: Files, make_job: Make) -> None:
    engine, others_done = make_engine(), threading.Event()
    files.before = lambda _: others_done.wait(HANG_S)
    engine.start()
    waiting = engine.submit(make_job("a", loras=uses("l0")), {}, JobControl())
    left = JobControl()
    cancelled = engine.submit(make_job("b", loras=uses("l1")), {}, left)
    (other,) = run_jobs(engine, make_job("c"))
    assert not isinstance(other, JobError)
    assert not waiting.done()
    left.is_cancelled = True
    assert isinstance(cancelled.exception(HANG_S), JobCancelled)
    others_done.set()
    assert not isinstance(waiting.result(HANG_S), JobError)


def test_what_main_memory_does_not_keep_is_read_again(files: Files, one_bytes: int) -> None:
    model = loaded(MODEL)
    for read_bytes_max, reads in ((0, 2), (2 * one_bytes, 1)):
        cache = AdapterCache(CPU, read_bytes_max, one_bytes, files, Recorder(), lambda: None)
        files.asked.clear()
        for lora in ("l0", "l1", "l0"):
            hold(cache, model, lora)
            cache.release(MODEL, uses(lora))
        assert files.asked == {"l0": reads, "l1": 1}
        cache.close()
    for lora in ("l0", "l1"):
        model.remove_adapter(lora)


def test_a_model_that_is_loaded_again_gets_its_loras_again(folder: Path, make_job: Make) -> None:
    cache = AdapterCache(CPU, 2**30, 2**30, Files(folder, tiny_model("flux").pipe, 2), Recorder(), lambda: None)
    for _ in range(2):
        model = tiny_model("flux")
        hold(cache, model, "l0")
        (image,) = generate(model, make_job("a", **SMALL, loras=uses("l0")))
        (plain,) = generate(model, make_job("a", **SMALL))
        assert not np.array_equal(image.pixels, plain.pixels)
        cache.release("flux", uses("l0"))
        model.close()
    cache.close()


def test_loras_are_measured(files: Files, one_bytes: int) -> None:
    recorder = Recorder()
    cache = AdapterCache(CPU, 2**30, one_bytes, files, recorder, lambda: None)
    model = loaded(MODEL)
    for lora in ("l0", "l0", "l1"):
        hold(cache, model, lora)
        cache.release(MODEL, uses(lora))
    read = of_text(generate_latest(recorder.registry).decode())
    assert {event: read["nag_lora_events_total", event, MODEL] for event in ("hit", "loaded", "evicted")} == {
        "hit": 1, "loaded": 2, "evicted": 1,
    }  # fmt: skip
    assert read["nag_lora_resident_bytes", MODEL] == one_bytes
    assert read["nag_lora_read_seconds_count", MODEL] == 2
    cache.close()
    model.remove_adapter("l1")
