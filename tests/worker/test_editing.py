"""Edits through the embedded model: what stays of the picture, and a row's independence of the others."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from app.catalog import Catalog, Model
from app.jobs import Applied, Edit, Guidance, Job
from app.settings import Settings
from app.worker import pipelines
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.editing import Share
from app.worker.engine import TorchEngine
from app.worker.work import Control, Made
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


FILES = {
    "red": png(shape("red")),
    "blue": png(shape("blue", "black")),
    "right": png(right_half()),
    "soft": png(Image.linear_gradient("L").resize((64, 64))),
}
EMBEDDED = Catalog.load(Settings()).models


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


def test_a_soft_mask_blends(pipe: Any, entry: Model, make_job: Make) -> None:
    """The same mask cut at its middle is what the denoiser sees, so the two results differ by the blending alone."""
    cut = Image.open(io.BytesIO(FILES["soft"])).point(lambda value: 255 * (value >= 128))
    files = FILES | {"cut": png(cut), "all": png(Image.new("L", (64, 64), 255))}

    def pixels(mask: str) -> Any:
        job = make_job("a", prompt="a green square", num_inference_steps=4, edit=Edit(1.0, "red", mask))
        return run(pipe, entry, job, hooks=Hooks(files=files)).pixels[0]

    before = np.asarray(shape("red"), dtype=np.float32) / 255
    share = np.asarray(Image.open(io.BytesIO(FILES["soft"])), dtype=np.float32)[..., None] / 255
    soft, hard = pixels("soft"), pixels("cut")
    regenerated = np.asarray(cut) == 255
    blended = before * (1 - share) + hard * share
    assert np.allclose(soft[regenerated], blended[regenerated], atol=TOLERANCE)
    assert np.abs(soft - hard)[regenerated].max() > 0.1


@pytest.mark.parametrize("name", [name for name, model in EMBEDDED.items() if model.edits and name != "shapes-flux"])
def test_every_embedded_model_does_the_edits_it_offers(name: str, make_job: Make) -> None:
    entry = EMBEDDED[name]
    pipe = pipelines.load(entry, CPU)
    channels = pipe.unet.config.in_channels
    for task in entry.edits:
        mask = "right" if task == "inpaint" else None
        for scale in (1.0, 3.0):
            edit = Edit(0.75, "red", mask)
            job = make_job("a", prompt="a blue square", num_inference_steps=4, guidance_scale=scale, edit=edit, nag=NAG)
            done = run(pipe, entry, job)
            made = (done.pixels[0] * 255).round().astype(np.uint8)
            assert done.applied[0].applied
            assert np.abs(made[:, 32:].astype(int) - np.asarray(shape("red"))[:, 32:]).mean() > 5
            assert mask is None or np.array_equal(made[:, :32], np.asarray(shape("red"))[:, :32])
    assert pipe.unet.config.in_channels == channels


def test_guidance_that_is_over_before_the_first_step_is_said(engine: TorchEngine, make_job: Make) -> None:
    late = Guidance(5.0, 2.5, 0.25, 0.1, "a red shape")
    control = Control(files=dict(FILES))
    job = make_job("a", num_inference_steps=4, edit=Edit(0.25, "red"), nag=late)
    plain = make_job("b", num_inference_steps=4, edit=Edit(0.25, "red"), nag=replace(late, end=0.0))
    outcomes = engine.run([job, plain], control)
    made, off = outcomes["a"], outcomes["b"]
    assert isinstance(made, Made)
    assert isinstance(off, Made)
    assert made.applied == Applied(False, "ended_before_first_step", 5.0, 2.5, 0.25, 0.1, 0.0, 0.0, "nag")
    assert made.warnings == (
        "nag was not applied: end 0.1 is over before the first step of an edit at strength 0.25; raise nag.end or "
        "strength",
    )
    assert (off.applied, off.warnings) == (Applied(False, "end_is_0"), ())


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
