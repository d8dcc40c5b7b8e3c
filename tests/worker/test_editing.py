"""Edits through the embedded model: what stays of the picture, and a row's independence of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from app.catalog import Model
from app.jobs import Edit, Guidance, Job
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.editing import Share
from tests.pictures import png

Make = Callable[..., Job]
CPU = torch.device("cpu")
TOLERANCE = 2e-4  # of pixels in [0, 1]; sums in another order differ in the last float32 digits
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


def shape(color: str, background: str = "white") -> Image.Image:
    picture = Image.new("RGB", (64, 64), background)
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=color)
    return picture


def right_half() -> Image.Image:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    return mask


FILES = {"red": png(shape("red")), "blue": png(shape("blue", "black")), "right": png(right_half())}


def run(pipe: Any, entry: Model, *jobs: Job, hooks: Hooks | None = None) -> Denoised:
    return denoise(pipe, entry, [Row(job, 0) for job in jobs], CPU, hooks or Hooks(files=FILES))


def test_the_less_strength_the_nearer_to_the_picture(pipe: Any, entry: Model, make_job: Make) -> None:
    own = (run(pipe, entry, make_job("own")).pixels[0] * 255).round().astype(np.uint8)
    files = {"own": png(Image.fromarray(own))}

    def made(strength: float) -> float:
        job = make_job("a", prompt="a green square", num_inference_steps=50, edit=Edit(strength, "own"))
        return float(np.abs(run(pipe, entry, job, hooks=Hooks(files=files)).pixels[0] - own / 255).mean())

    little, half, whole = made(0.01), made(0.5), made(1.0)
    assert little < 0.02
    assert little < half < whole


def test_what_the_mask_does_not_show_stays_to_the_bit(pipe: Any, entry: Model, make_job: Make) -> None:
    job = make_job("a", prompt="a green square", num_inference_steps=4, edit=Edit(1.0, "red", "right"), nag=NAG)
    done = run(pipe, entry, job)
    made = (done.pixels[0] * 255).round().astype(np.uint8)
    before = np.asarray(shape("red"))
    assert np.array_equal(made[:, :32], before[:, :32])
    assert np.abs(made[:, 32:].astype(int) - before[:, 32:]).mean() > 5
    assert done.applied[0].applied


@pytest.mark.parametrize("mask", [None, "right"])
def test_a_row_is_the_same_alone_and_among_others(pipe: Any, entry: Model, make_job: Make, mask: str | None) -> None:
    def job(name: str, seed: int, picture: str, nag: Guidance | None) -> Job:
        return make_job(
            name, seed=seed, prompt="a shape", num_inference_steps=4, edit=Edit(0.7, picture, mask), nag=nag
        )

    weak = Guidance(3.0, 2.0, 0.5, 0.5, "a square")
    jobs = [job("a", 1, "red", NAG), job("b", 2, "blue", None), job("c", 3, "red", weak)]
    together = run(pipe, entry, *jobs)
    for i, each in enumerate(jobs):
        alone = run(pipe, entry, each)
        assert np.abs(alone.pixels[0] - together.pixels[i]).max() < TOLERANCE, each.id
        assert alone.applied[0] == together.applied[i]
    assert np.abs(together.pixels[0] - run(pipe, entry, job("a", 1, "red", None)).pixels[0]).max() > TOLERANCE


def test_the_steps_told_are_those_that_are_run(pipe: Any, entry: Model, make_job: Make) -> None:
    for strength, steps in ((0.01, 1), (0.5, 3), (0.7, 4), (1.0, 6)):
        told: list[int] = []
        job = make_job("a", num_inference_steps=6, edit=Edit(strength, "red"))
        run(pipe, entry, job, hooks=Hooks(told.append, files=FILES))
        assert told == list(range(1, steps + 1))
        assert job.request.steps == steps


def test_no_weights_are_loaded_twice_and_the_pipeline_is_left_as_it_was(
    pipe: Any, entry: Model, make_job: Make
) -> None:
    before = run(pipe, entry, make_job("a")).pixels
    parts, config = {name: id(each) for name, each in pipe.components.items()}, dict(pipe.config)
    held = {id(each) for each in pipe.transformer.parameters()}
    run(pipe, entry, make_job("b", edit=Edit(0.5, "red"), nag=NAG))
    assert {name: id(each) for name, each in pipe.components.items()} == parts
    assert {id(each) for each in pipe.transformer.parameters()} == held
    assert dict(pipe.config) == config
    assert np.array_equal(run(pipe, entry, make_job("a")).pixels, before)


def test_the_batch_key_tells_tasks_and_steps_apart(make_job: Make) -> None:
    plain = make_job("a", num_inference_steps=8)
    key = plain.request.batch_key
    keys = [
        make_job("b", num_inference_steps=8, edit=edit).request.batch_key
        for edit in (Edit(0.5, "x"), Edit(0.51, "y"), Edit(0.7, "x"), Edit(0.5, "x", "m"))
    ]
    assert keys[0] == keys[1]
    assert len({key, *keys}) == 4


def test_a_share_of_the_steps_is_exact() -> None:
    for whole in range(1, 120):
        for part in range(1, whole + 1):
            share = Share(part, whole)
            assert int(whole * share) == part == whole - int(whole - whole * share)
            assert 0 < share <= 1
