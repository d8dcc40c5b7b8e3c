"""What a pipeline call shows of its image before it is done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from app.jobs import Job
from app.worker.engine.pipeline_call import CallResult
from app.worker.engine.shared_model import SharedModel
from app.worker.outputs.previews import LEARNT_MIN, Sketch, predicted, steps_shown
from app.worker.protocol import JobControl, Preview
from tests.inputs import edit
from tests.pictures import png
from tests.worker.generate import generate, levels

Make = Callable[..., Job]


@pytest.mark.parametrize(("total", "count", "shown"), [
    (4, 3, {1, 2, 3}), (4, 1, {2}), (50, 3, {12, 25, 38}), (2, 3, {1}), (1, 3, set()), (8, 0, set()),
])  # fmt: skip
def test_previews_are_spread_over_the_steps(make_job: Make, total: int, count: int, shown: set[int]) -> None:
    assert steps_shown(make_job("a", num_inference_steps=total, previews=count).request) == shown


@pytest.mark.parametrize("name", [
    "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler",
    "LCMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
def test_a_scheduler_tells_the_clean_latents_it_predicts(name: str) -> None:
    """Of a model that is never wrong they are the clean latents, whatever the step."""
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=generator).unbind(0)
    clean = clean.clamp(-1, 1)  # what DDIM holds it to
    flow = "FlowMatch" in name
    sample = noise if flow else scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    with predicted(scheduler) as latest:
        assert latest() is None
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = sample if flow else scheduler.scale_model_input(sample, timestep)
            wrong = _never_wrong(scheduler, scaled, sample, clean, timestep, index)
            sample = scheduler.step(wrong, timestep, sample, return_dict=False)[0]
            found = latest()
            assert found is not None
            # LCM keeps some of the sample beside what the model predicts, the less the earlier the step.
            assert torch.allclose(found, clean, atol=0.3 if name == "LCMScheduler" else 1e-3), index
    assert "step" not in vars(scheduler)


def _never_wrong(
    scheduler: Any, scaled: torch.Tensor, sample: torch.Tensor, clean: torch.Tensor, timestep: Any, index: int
) -> torch.Tensor:
    """What such a model answers: a velocity, or the noise in the sample."""
    if "Flow" in type(scheduler).__name__:
        return (sample - clean) / scheduler.sigmas[index]
    if "Euler" in type(scheduler).__name__:
        return (sample - clean) / scheduler.sigmas[index]
    kept = scheduler.alphas_cumprod[int(timestep)]
    return (scaled - kept**0.5 * clean) / (1 - kept) ** 0.5


def test_a_sketch_learns_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    weights = generator.uniform(0, 0.2, (5, 3)).astype(np.float32)
    latents = generator.uniform(0, 1, (4, 4, 6, 5)).astype(np.float32)
    pixels = (latents @ weights).repeat(8, axis=1).repeat(8, axis=2)
    for layout in (
        lambda cells: torch.from_numpy(cells).permute(0, 3, 1, 2),
        lambda cells: torch.from_numpy(cells).permute(0, 3, 1, 2)[:, :, None],
        lambda cells: torch.from_numpy(cells).reshape(len(cells), 24, 5),
    ):
        sketch = Sketch(side_px=1024)
        assert sketch.draw(layout(latents), 32, 48) is None
        sketch.learn(layout(latents)[:3], pixels[:3])
        assert sketch.draw(layout(latents), 32, 48) is None  # too few
        sketch.learn(layout(latents)[3:], pixels[3:])
        drawn = sketch.draw(layout(latents), 32, 48)
        assert drawn is not None
        assert drawn.shape == (4, 8, 12, 3)
        assert np.abs(drawn / 255 - pixels[:, 2::4, 2::4]).max() < 0.02
        assert sketch.draw(torch.zeros(1, 7, 5), 32, 48) is None
        sketch.learn(torch.zeros(4, 7, 5), pixels)


def test_previews_foretell_the_image_and_change_nothing(shared: SharedModel, make_job: Make) -> None:
    prompts = ["a red circle on a white background", "a blue square on a black background",
               "a green triangle on a gray background", "a yellow circle on a black background"]  # fmt: skip
    sketch = Sketch(side_px=64)

    def run(seed: int, previews: int) -> tuple[list[CallResult], list[Preview]]:
        shown: list[Preview] = []
        jobs = [
            make_job(f"{i}", prompt=prompt, seed=seed + i, previews=previews, num_inference_steps=4)
            for i, prompt in enumerate(prompts)
        ]
        watched = sketch if previews else None
        return generate(shared, *jobs, control=JobControl(on_preview=shown.append), sketch=watched), shown

    assert run(0, 3)[1] == []  # before enough was learnt
    images, shown = run(50, 3)
    plain, none = run(50, 0)
    assert none == []
    assert all(np.array_equal(image.pixels, other.pixels) for image, other in zip(images, plain, strict=True))
    assert sorted((preview.job_id, preview.index, preview.step) for preview in shown) == [
        (f"{i}", 0, step) for i in range(4) for step in (1, 2, 3)
    ]
    for preview in shown:
        if preview.step == 3:
            off = [float(np.abs(levels(image) - preview.pixels).mean()) for image in images]
            assert int(np.argmin(off)) == int(preview.job_id)
            assert min(off) < 30


def test_each_image_of_a_job_has_previews_of_its_own(shared: SharedModel, make_job: Make) -> None:
    sketch, shown = Sketch(side_px=64), list[Preview]()
    generate(shared, make_job("learn", n=LEARNT_MIN, num_inference_steps=2), sketch=sketch)
    job = make_job("a", n=2, previews=1, num_inference_steps=4)
    generate(shared, job, control=JobControl(on_preview=shown.append), sketch=sketch)
    assert [(preview.index, preview.step) for preview in shown] == [(0, 2), (1, 2)]
    assert not np.array_equal(shown[0].pixels, shown[1].pixels)


def test_a_masked_edit_teaches_nothing(shared: SharedModel, make_job: Make) -> None:
    """What it decodes is in part the image that it started from."""
    white = png(Image.new("RGB", (64, 64), "white"))
    for mask, learns in ((None, True), ("white", False)):
        sketch, shown = Sketch(side_px=64), list[Preview]()
        job = make_job("a", n=LEARNT_MIN, **edit(1.0, "white", mask))
        generate(shared, job, files={"white": white}, sketch=sketch)
        generate(shared, make_job("b", previews=1), sketch=sketch, control=JobControl(on_preview=shown.append))
        assert bool(shown) == learns


def test_a_copy_of_a_watched_scheduler_steps_for_itself() -> None:
    """LTX-2 copies its scheduler for the sound."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    with predicted(scheduler) as latest:
        other = copy.deepcopy(scheduler)
        for timestep in scheduler.timesteps:
            scheduler.step(torch.ones(1), timestep, torch.zeros(1))
            other.step(torch.zeros(2), timestep, torch.zeros(2))
        clean = latest()
    assert clean is not None
    assert clean.shape == (1,)
    assert (scheduler.step_index, other.step_index) == (2, 2)
