"""Videos through a small random Wan: the rules of images hold for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.catalog import Catalog, Model
from app.jobs import Guidance, Job
from app.settings import Settings
from app.worker.engine import pipelines
from app.worker.engine.shared_model import SharedModel
from app.worker.engine.torch_engine import TorchEngine
from app.worker.outputs.postprocess import NAN
from app.worker.protocol import JobControl, JobOutput
from app.worker.recorder import Recorder
from tests.catalogs import MODEL
from tests.limits import HANG_S
from tests.videos import read
from tests.worker.generate import CPU, difference, generate, run_jobs

Make = Callable[..., Job]
VISIBLE = 2e-4
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


@pytest.fixture(scope="module")
def catalog(video_catalog: Path) -> Catalog:
    return Catalog.load(Settings(catalog=video_catalog))


@pytest.fixture(scope="module")
def entry(catalog: Catalog) -> Model:
    return catalog.models[MODEL]


@pytest.fixture(scope="module")
def shared(entry: Model) -> SharedModel:
    return SharedModel(entry, pipelines.load(entry, CPU))


@pytest.fixture
def make_engine(catalog: Catalog) -> Iterator[Callable[[], TorchEngine]]:
    """`make_engine()`: an engine that is not started."""
    made: list[TorchEngine] = []

    def make() -> TorchEngine:
        made.append(TorchEngine(catalog, Settings(device="cpu", batch_size=2, batch_budget="fixed"), Recorder()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def make_video(make_job: Make) -> Make:
    def make(job_id: str, **changes: Any) -> Job:
        request = {"model": MODEL, "width": 64, "height": 48, "num_frames": 9, "fps": 16, "output_format": "mp4"}
        return make_job(job_id, **(request | {"video_codec": "h264"} | changes))

    return make


def test_a_video_is_the_same_alone_and_joined(shared: SharedModel, make_video: Make) -> None:
    jobs = [
        make_video("plain", seed=5),
        make_video("guided", seed=2, prompt="a shape", nag=NAG),
        make_video("half", seed=9, nag=Guidance(3.0, 2.0, 0.5, 0.5, "a square"), num_inference_steps=4),
        make_video("off", seed=4, nag=Guidance(1.0, 2.5, 0.25, 1.0, "green")),
        make_video("cfg", seed=6, guidance_scale=4.0, negative_prompt="a red shape", nag=NAG),
        make_video("longer", seed=5, num_frames=13),
    ]
    joined = generate(shared, *jobs)
    assert joined[0].pixels.shape == (9, 48, 64, 3)
    assert [video.batch_size for video in joined] == [5, 5, 5, 5, 5, 1]
    for job, video in zip(jobs, joined, strict=True):
        (alone,) = generate(shared, job)
        assert difference(alone, video) <= 1, job.id
        assert alone.applied == video.applied
    assert [video.applied.applied for video in joined] == [False, True, True, False, True, False]


def test_the_seed_and_each_guidance_change_the_video(shared: SharedModel, make_video: Make) -> None:
    plain = make_video("plain", seed=1)
    others = [
        make_video("seed", seed=2),
        make_video("nag", seed=1, nag=NAG),
        make_video("cfg", seed=1, guidance_scale=4.0, negative_prompt="a red shape"),
    ]
    (before,) = generate(shared, plain)
    for other, video in zip(others, generate(shared, *others), strict=True):
        assert np.abs(video.pixels - before.pixels).max() > VISIBLE, other.id
    assert np.array_equal(generate(shared, plain)[0].pixels, before.pixels)


def test_times_and_steps_with_one_denoiser_or_two(entry: Model, make_video: Make) -> None:
    from tests.tiny.wan import wan, wan_late, wan_two

    for pipe in (wan(), wan_two(), wan_late()):
        pipe.set_progress_bar_config(disable=True)
        model = SharedModel(entry, pipe)
        jobs = [make_video("a", num_inference_steps=3, nag=NAG), make_video("b", num_inference_steps=5, seed=2)]
        made = generate(model, *jobs)
        assert made[0].applied.applied
        for job, video in zip(jobs, made, strict=True):
            assert min(video.encode_ms, video.denoise_ms, video.decode_ms) > 0
            assert difference(generate(model, job)[0], video) <= 1


def test_n_videos_are_n_seeds_each_at_its_job_s_speed(make_engine: Callable[[], TorchEngine], make_video: Make) -> None:
    engine = make_engine()
    engine.start()
    slow, two = run_jobs(engine, make_video("slow", fps=4), make_video("two", n=2, seed=10))
    assert isinstance(slow, JobOutput)
    assert isinstance(two, JobOutput)
    assert (slow.media_type, two.media_type, two.seeds) == ("video/mp4", "video/mp4", (10, 11))
    videos = [read(file.read()) for file in (*slow.files, *two.files) if not isinstance(file, bytes)]
    assert [video.fps for video in videos] == [4, 16, 16]
    assert not np.array_equal(videos[1].frames, videos[2].frames)
    for output in (slow, two):
        output.close()


def test_one_frame_that_is_not_numbers_fails_its_video_alone(
    make_engine: Callable[[], TorchEngine], make_video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = pipelines.load

    def spoil(_: Any, args: Any, output: Any) -> None:
        output[0][0, :, -1] = torch.nan

    def load_spoilt(entry: Model, device: torch.device) -> Any:
        pipe = load(entry, device)
        pipe.transformer.register_forward_hook(spoil)
        return pipe

    monkeypatch.setattr(pipelines, "load", load_spoilt)
    engine = make_engine()
    futures = [engine.submit(make_video(name), {}, JobControl()) for name in "ab"]
    engine.start()  # both are there, and share each call
    assert futures[0].result(HANG_S) == NAN
    output = futures[1].result(HANG_S)
    assert isinstance(output, JobOutput)
    assert output.batch_size == 2
    output.close()
