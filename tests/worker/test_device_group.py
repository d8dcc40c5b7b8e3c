"""A worker over several ranks, processes on one CPU, makes the images and videos of one device."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.catalog import Catalog, Model, Parallelism, Quantization
from app.jobs import Job, JobError, LoraUse
from app.loading.pipeline import load
from app.settings import Settings
from app.worker.devices.device_group import start_followers
from app.worker.engine import pipelines
from app.worker.engine import torch_engine as engine_module
from app.worker.engine.adapters import RowLayout
from app.worker.engine.pipeline_call import CallResult
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.shared_modules import DenoiserCall
from app.worker.engine.torch_engine import TorchEngine
from app.worker.models.model_cache import ModelUnavailable
from tests.limits import HANG_S
from tests.worker.generate import CPU, difference, generate, run_jobs
from tests.worker.loras import add_loras
from tests.worker.mixes import FILES, NAG, alone, image_mix, loaded, video_mix
from tests.worker.ranks import KNOWN, LORAS, SplitModel, of_model, started_engine
from tests.worker.small import in_folder

Make = Callable[..., Job]
#: Of diffusers, which calls functions of torch by former names.
pytestmark = [
    pytest.mark.slow,  # starts a process for each rank
    pytest.mark.filterwarnings("ignore:`torch.distributed._functional_collectives:FutureWarning"),
]
MANY_STEPS = 10  # of jobs of the mixes that add nothing here
ULYSSES, RING, TENSOR = Parallelism(ulysses=2), Parallelism(ring=2), Parallelism(tensor=2)


def quantized(method: Any) -> dict[str, Any]:
    return {"parallel": ULYSSES, "quantization": Quantization(method=method, components=("transformer",))}


#: By name, the embedded model and its settings. A ring needs attention that gives the log-sum-exp.
SPLIT: dict[str, SplitModel] = {
    "flux-ulysses": ("shapes-flux", {"parallel": ULYSSES}),
    "flux-tensor": ("shapes-flux", {"parallel": TENSOR, "request_loras": False}),
    "flux-ring": ("shapes-flux", {"parallel": RING, "attention": "_native_flash"}),
    "flux-fp8": ("shapes-flux", quantized("layerwise-fp8")),
    "flux-int8": ("shapes-flux", quantized("torchao-int8")),
    "wan-ulysses": ("shapes-wan", {"parallel": ULYSSES}),
}
PACKAGES = {"flux-int8": "torchao"}
#: Those that make every job of a mix; the others, every third one.
WITH_ALL = ("flux-ulysses", "wan-ulysses")


def unloadable(folder: Path) -> list[Model]:
    """Entries that rank 0, the other rank or both cannot load."""
    entries = []
    for part in ("text_encoder", "transformer"):
        repository = folder / part
        shutil.copytree(KNOWN["shapes-flux"].repository, repository)
        (weights,) = (repository / part).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
        entries.append(KNOWN["shapes-flux"].model_copy(update={"repository": str(repository), "id": f"cut {part}"}))
    entries.append(entries[-1].model_copy(update={"id": "cut there"}))
    entries.append(in_folder(Catalog.known(Settings())["ltx-video-distilled"], folder))
    return [entry.model_copy(update={"parallel": ULYSSES}) for entry in entries]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchEngine]:
    with started_engine(2, SPLIT, *unloadable(tmp_path_factory.mktemp("repositories"))) as engine:
        yield engine


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[CallResult]]:
    """What the engine makes, by job, before it is encoded."""
    made: dict[str, list[CallResult]] = {}
    encode = engine_module.to_job_output  # type: ignore[attr-defined]

    def note(job: Job, images: list[CallResult]) -> Any:
        made[job.id] = images
        return encode(job, images)

    monkeypatch.setattr(engine_module, "to_job_output", note)
    return made


def check(made: dict[str, list[CallResult]], expected: dict[str, tuple[CallResult, ...]]) -> None:
    assert made.keys() == expected.keys()
    for job, results in expected.items():
        for result, other in zip(results, made[job], strict=True):
            assert np.abs(result.pixels - other.pixels).max() < 1 / 255, job
            assert result.applied == other.applied


def on_one_device(name: str, jobs: list[Job]) -> dict[str, tuple[CallResult, ...]]:
    """What each job's images are on one device, alone, by the settings of the split model that decide about pixels."""
    base, changes = SPLIT[name]
    if "quantization" not in changes:
        return {job.id: alone(job) for job in jobs}
    entry = KNOWN[base].model_copy(update={"quantization": changes["quantization"]})
    model = SharedModel(entry, pipelines.load(entry, CPU))
    try:
        return {job.id: tuple(generate(model, job, files=FILES)) for job in jobs}
    finally:
        model.close()


@pytest.mark.parametrize("model", SPLIT)
def test_two_ranks_make_what_one_device_makes(
    engine: TorchEngine, made: dict[str, list[CallResult]], make_job: Make, model: str
) -> None:
    pytest.importorskip(PACKAGES.get(model, "torch"))
    base = SPLIT[model][0]
    mix = video_mix if base == "shapes-wan" else image_mix
    jobs = [job for job in mix(make_job, base) if job.request.num_inference_steps < MANY_STEPS]
    jobs = jobs if model in WITH_ALL else jobs[1::3]
    for output in run_jobs(engine, *of_model(jobs, model), files=FILES):
        assert not isinstance(output, JobError), output
        output.close()
    assert max(result.batch_size for results in made.values() for result in results) > 1
    check(made, on_one_device(model, jobs))


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


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("cut text_encoder", "LoadError"),
        ("cut transformer", "LoadError"),
        ("cut there", "LoadError"),
        ("ltx-video-distilled", "UnsupportedPipeline"),  # diffusers splits it, and wrongly
    ],
)
def test_a_model_that_some_rank_cannot_load_leaves_them_to_the_others(
    engine: TorchEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch, model: str, reason: str
) -> None:
    with monkeypatch.context() as patch:
        if model == "cut there":  # on the disk of the other rank's machine alone
            patch.setattr(pipelines, "load", lambda entry, device: load(KNOWN["shapes-flux"], device))
        with pytest.raises(ModelUnavailable, match=rf"could not be loaded \({reason}\)"):
            in_its_thread(engine, partial(engine._cache.get, model))
    job = make_job("a", seed=3, nag=NAG)
    (output,) = run_jobs(engine, *of_model([job], "flux-ulysses"))
    assert difference(output, alone(job)[0]) <= 1


def test_a_rank_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    (rank,) = start_followers(Settings(device="cpu", devices=(0, 1), rendezvous=store))
    assert rank.stdin is not None
    rank.stdin.close()
    assert rank.wait(HANG_S) == 0  # it would else wait for the other one
