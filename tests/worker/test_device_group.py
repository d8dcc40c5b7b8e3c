"""A worker over two ranks, processes on one CPU, makes the images and videos of one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.catalog import Catalog, Model, Parallelism
from app.jobs import Job, JobError, LoraUse
from app.settings import Settings
from app.worker import engine as engine_module
from app.worker.adapters import RowLayout
from app.worker.engine import TorchEngine
from app.worker.pipeline_call import CallResult
from app.worker.recorder import Recorder
from app.worker.shared_model import DenoiserCall, SharedModel
from tests.limits import HANG_S
from tests.worker.generate import generate, run_jobs
from tests.worker.loras import add_loras
from tests.worker.mixes import FILES, NAG, alone, image_mix, loaded, video_mix

Make = Callable[..., Job]
#: Of diffusers, which calls functions of torch by former names.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.distributed._functional_collectives:FutureWarning")
MANY_STEPS = 10  # of jobs of the mixes that add nothing here
ULYSSES, TENSOR = Parallelism(ulysses=2), Parallelism(tensor=2)
KNOWN = Catalog.load(Settings()).models
SPLIT: dict[str, tuple[str, dict[str, Any]]] = {
    "flux-ulysses": ("shapes-flux", {"parallel": ULYSSES}),
    "flux-tensor": ("shapes-flux", {"parallel": TENSOR, "request_loras": False}),
    "wan-ulysses": ("shapes-wan", {"parallel": ULYSSES}),
}
LORAS = {name: Path(__file__).parents[2] / f"app/builtin/loras/{name}.safetensors" for name in ("dotted", "underlined")}


class LoraFiles:
    def path(self, lora: str, entry: Model) -> Path:
        return LORAS[lora]


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    """A started engine of two ranks, with models that are split over both and one that is not."""
    settings = Settings(device="cpu", devices=(0, 1), batch_size=4, batch_budget="fixed")
    models = {name: KNOWN[base].model_copy(update={"id": name, **changes}) for name, (base, changes) in SPLIT.items()}
    catalog = Catalog.load(settings).model_copy(update={"models": {**models, "shapes-flux": KNOWN["shapes-flux"]}})
    engine = TorchEngine(catalog, settings, Recorder(), LoraFiles())
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[CallResult]]:
    """What the engine makes, by job, before it is encoded."""
    made: dict[str, list[CallResult]] = {}
    encode = engine_module.to_job_output

    def note(job: Job, images: list[CallResult]) -> Any:
        made[job.id] = images
        return encode(job, images)

    monkeypatch.setattr(engine_module, "to_job_output", note)
    return made


def of_model(jobs: list[Job], model: str) -> list[Job]:
    return [replace(job, request=replace(job.request, model=model)) for job in jobs]


def check(made: dict[str, list[CallResult]], expected: dict[str, tuple[CallResult, ...]]) -> None:
    assert made.keys() == expected.keys()
    for job, results in expected.items():
        for result, other in zip(results, made[job], strict=True):
            assert np.abs(result.pixels - other.pixels).max() < 1 / 255, job
            assert result.applied == other.applied


@pytest.mark.parametrize("model", SPLIT)
def test_two_ranks_make_what_one_device_makes(
    engine: TorchEngine, made: dict[str, list[CallResult]], make_job: Make, model: str
) -> None:
    mix = video_mix if model == "wan-ulysses" else image_mix
    jobs = [job for job in mix(make_job, SPLIT[model][0]) if job.request.num_inference_steps < MANY_STEPS]
    for output in run_jobs(engine, *of_model(jobs, model), files=FILES):
        assert not isinstance(output, JobError), output
        output.close()
    assert max(result.batch_size for results in made.values() for result in results) > 1
    check(made, {job.id: alone(job) for job in jobs})


def test_rows_have_their_loras_on_all_ranks(
    engine: TorchEngine, made: dict[str, list[CallResult]], make_job: Make
) -> None:
    jobs = [
        make_job("plain", seed=1),
        make_job("dotted", seed=1, nag=NAG, loras=(LoraUse("dotted", 1.2),)),
        make_job("both", seed=1, loras=(LoraUse("dotted", 0.5), LoraUse("underlined", 1.0))),
    ]
    run_jobs(engine, *of_model(jobs, "flux-ulysses"))
    model = SharedModel(KNOWN["shapes-flux"], loaded("shapes-flux").pipe)
    try:
        add_loras(model, LORAS)
        check(made, {job.id: tuple(generate(model, job)) for job in jobs})
    finally:
        model.close()
    assert np.abs(made["plain"][0].pixels - made["both"][0].pixels).max() > 0.1


def in_its_thread(engine: TorchEngine, function: Callable[[], Any]) -> Any:
    future: Future[Any] = Future()
    engine._ask(partial(engine_module._answer, future, function), future)
    return future.result(HANG_S)


def test_a_model_that_is_let_go_is_loaded_again_on_all_ranks(
    engine: TorchEngine, made: dict[str, list[CallResult]], make_job: Make
) -> None:
    job = make_job("a", seed=3, nag=NAG)
    in_its_thread(engine, engine._cache.drop_idle)
    assert engine.warm == ()
    run_jobs(engine, *of_model([job], "flux-ulysses"))
    check(made, {"a": alone(job)})


def test_ranks_go_on_together_after_a_call_that_all_refuse(
    engine: TorchEngine, made: dict[str, list[CallResult]], make_job: Make
) -> None:
    call, job = DenoiserCall({"return_dict": False}, [None], [()], RowLayout()), make_job("a", seed=3, nag=NAG)

    def refuse() -> None:
        model = engine._cache.get("flux-ulysses")
        assert model.group is not None
        model.group.send("call", model.entry.id, "transformer", call)
        with model.group.in_step():
            model.denoisers["transformer"].call(call)

    with pytest.raises(TypeError, match="hidden_states"):
        in_its_thread(engine, refuse)
    run_jobs(engine, *of_model([job], "flux-ulysses"))
    check(made, {"a": alone(job)})
