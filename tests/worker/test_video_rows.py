"""A batch of videos through a small random Wan: the rules of pictures hold for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.catalog import Catalog, Model
from app.jobs import Guidance, Job
from app.settings import Settings
from app.worker import pipelines
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.engine import TorchEngine
from app.worker.outcome import NAN
from app.worker.recorder import Recorder
from app.worker.work import Control, Made
from tests.tiny.served import MODEL
from tests.videos import read

Make = Callable[..., Job]
CPU = torch.device("cpu")
TOLERANCE = 2e-4
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


@pytest.fixture(scope="module")
def catalog(video_catalog: Path) -> Catalog:
    return Catalog.load(Settings(catalog=video_catalog))


@pytest.fixture(scope="module")
def entry(catalog: Catalog) -> Model:
    return catalog.models[MODEL]


@pytest.fixture(scope="module")
def pipe(entry: Model) -> Any:
    return pipelines.load(entry, CPU)


@pytest.fixture(scope="module")
def engine(catalog: Catalog) -> TorchEngine:
    settings = Settings(device="cpu", batch_size=2, batch_budget="fixed")
    engine = TorchEngine(catalog, settings, Recorder())
    engine.load(MODEL)
    return engine


@pytest.fixture
def make_video(make_job: Make) -> Make:
    def make(job_id: str, **changes: Any) -> Job:
        request = {"model": MODEL, "width": 64, "height": 48, "num_frames": 9, "fps": 16, "output_format": "mp4"}
        return make_job(job_id, **(request | {"video_codec": "h264"} | changes))

    return make


def run(pipe: Any, entry: Model, *jobs: Job) -> Denoised:
    return denoise(pipe, entry, [Row(job, 0) for job in jobs], CPU)


def test_a_video_is_the_same_alone_and_in_a_batch(pipe: Any, entry: Model, make_video: Make) -> None:
    jobs = [
        make_video("plain", seed=5),
        make_video("guided", seed=2, prompt="a shape", nag=NAG),
        make_video("half", seed=9, nag=Guidance(3.0, 2.0, 0.5, 0.5, "a square")),
        make_video("off", seed=4, nag=Guidance(1.0, 2.5, 0.25, 1.0, "green")),
    ]
    together = run(pipe, entry, *jobs)
    assert together.pixels.shape == (4, 9, 48, 64, 3)
    for i, job in enumerate(jobs):
        alone = run(pipe, entry, job)
        assert np.abs(alone.pixels[0] - together.pixels[i]).max() < TOLERANCE, job.id
        assert alone.applied[0] == together.applied[i]
    assert [each.applied for each in together.applied] == [False, True, True, False]


def test_the_seed_and_each_guidance_change_the_video(pipe: Any, entry: Model, make_video: Make) -> None:
    plain = make_video("plain", seed=1)
    others = [
        make_video("seed", seed=2),
        make_video("nag", seed=1, nag=NAG),
        make_video("cfg", seed=1, guidance_scale=4.0, negative_prompt="a red shape"),
    ]
    before = run(pipe, entry, plain).pixels
    for each in others:
        assert np.abs(run(pipe, entry, each).pixels - before).max() > TOLERANCE, each.id
    assert np.array_equal(run(pipe, entry, plain).pixels, before)


def test_times_and_steps_with_one_denoiser_or_two(pipe: Any, entry: Model, make_video: Make) -> None:
    from tests.tiny.wan import wan_late, wan_two

    for each in (pipe, wan_two(), wan_late()):
        each.set_progress_bar_config(disable=True)
        steps: list[int] = []
        done = denoise(each, entry, [Row(make_video("a", num_inference_steps=3, nag=NAG), 0)], CPU, Hooks(steps.append))
        assert steps == [1, 2, 3]
        assert done.applied[0].applied
        assert min(done.encode_ms, done.denoise_ms, done.decode_ms) > 0


def test_frames_keep_videos_apart_and_their_speed_does_not(make_video: Make, make_job: Make) -> None:
    keys = [make_video("a", **each).request.batch_key for each in ({}, {"fps": 8, "nag": NAG}, {"num_frames": 13})]
    assert keys[0] == keys[1] != keys[2]
    assert make_job("a", width=64, height=48).request.batch_key not in keys


def test_n_videos_are_n_seeds_each_at_its_job_s_speed(engine: TorchEngine, make_video: Make) -> None:
    made = engine.run([make_video("slow", fps=4), make_video("two", n=2, seed=10)], Control())
    slow, two = made["slow"], made["two"]
    assert isinstance(slow, Made)
    assert isinstance(two, Made)
    assert (slow.media_type, two.media_type, two.seeds) == ("video/mp4", "video/mp4", (10, 11))
    videos = [read(each.read()) for each in (*slow.files, *two.files) if not isinstance(each, bytes)]
    assert [each.fps for each in videos] == [4, 16, 16]
    assert not np.array_equal(videos[1].frames, videos[2].frames)
    for each in (slow, two):
        each.close()


def test_one_frame_that_is_not_numbers_fails_its_video_alone(engine: TorchEngine, make_video: Make) -> None:
    def spoil(_: Any, args: Any, output: Any) -> None:
        output[0][0, :, -1] = torch.nan

    handle = engine.pipe(MODEL).transformer.register_forward_hook(spoil)
    made = engine.run([make_video("a"), make_video("b")], Control())
    handle.remove()
    assert made["a"] == NAN
    assert isinstance(made["b"], Made)
    made["b"].close()
