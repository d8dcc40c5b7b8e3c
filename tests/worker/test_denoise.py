"""One batch through the embedded model; its pictures' content is nobody's business here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from app.catalog import Model
from app.jobs import Applied, Guidance, Job
from app.worker.batching import Row
from app.worker.denoise import Denoised, Hooks, denoise
from app.worker.pipelines import cfg_arguments
from app.worker.scales import RowScale
from app.worker.work import Stopped
from tests.tiny import CASES

Make = Callable[..., Job]
CPU = torch.device("cpu")
TOLERANCE = 2e-4  # of pixels in [0, 1]; sums in another order differ in the last float32 digits
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=1.0, negative_prompt="a red shape")


def run(pipe: Any, entry: Model, *jobs: Job) -> Denoised:
    return denoise(pipe, entry, [Row(job, 0) for job in jobs], CPU)


def test_a_picture_is_the_same_alone_and_in_a_batch(pipe: Any, entry: Model, make_job: Make) -> None:
    jobs = [
        make_job("plain", seed=1),
        make_job("guided", seed=2, prompt="a shape", nag=NAG),
        make_job("half", seed=3, nag=Guidance(3.0, 2.0, 0.5, 0.5, "a square on a black background")),
        make_job("flipped", seed=5, nag=replace(NAG, scale=2.0, method="vsf")),
        make_job("late", seed=6, nag=replace(NAG, start=0.3, method="orthogonal")),
        make_job("off", seed=4, nag=Guidance(1.0, 2.5, 0.25, 1.0, "green")),
    ]
    together = run(pipe, entry, *jobs)
    for i, job in enumerate(jobs):
        alone = run(pipe, entry, job)
        assert np.abs(alone.pixels[0] - together.pixels[i]).max() < TOLERANCE, job.id
        assert alone.applied[0] == together.applied[i]
        levels, others = (np.round(pixels * 255) for pixels in (alone.pixels[0], together.pixels[i]))
        assert np.abs(levels - others).max() <= 1  # in the file


def test_the_seed_and_the_guidance_change_the_picture(pipe: Any, entry: Model, make_job: Make) -> None:
    jobs = [make_job("a", seed=1), make_job("b", seed=2), make_job("c", seed=1, nag=NAG)]
    pixels = run(pipe, entry, *jobs).pixels
    assert np.abs(pixels[0] - pixels[1]).max() > TOLERANCE
    assert np.abs(pixels[0] - pixels[2]).max() > TOLERANCE


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, Applied(False, "not_requested")),
        (Guidance(1.0, 2.5, 0.25, 1.0, "x"), Applied(False, "scale_is_1")),
        (Guidance(5.0, 2.5, 0.0, 1.0, "x"), Applied(False, "alpha_is_0")),
        (Guidance(5.0, 2.5, 0.25, 0.0, "x"), Applied(False, "end_is_0")),
        (Guidance(5.0, 2.5, 0.5, 1.0, "x", 0.75), Applied(True, None, 5.0, 2.5, 0.5, 1.0, 0.75, 0.0, "nag")),
        (
            Guidance(5.0, 2.5, 0.5, 1.0, "x", 0.0, 0.1, "vsf"),
            Applied(True, None, 5.0, 2.5, 0.5, 1.0, 0.0, 0.1, "vsf"),
        ),
        (
            Guidance(5.0, 2.5, 0.5, 1.0, "x", start=0.999),
            Applied(False, "no_step_within_start_and_end", 5.0, 2.5, 0.5, 1.0, 0.0, 0.999, "nag"),
        ),
    ],
)
def test_what_was_applied_is_said_alone_and_beside_others(
    pipe: Any, entry: Model, make_job: Make, asked: Guidance | None, said: Applied
) -> None:
    assert run(pipe, entry, make_job("a", nag=asked)).applied == (said,)
    assert run(pipe, entry, make_job("b", nag=NAG), make_job("a", nag=asked)).applied[1] == said


def test_the_pipeline_is_left_as_it_was(pipe: Any, entry: Model, make_job: Make) -> None:
    before = run(pipe, entry, make_job("a")).pixels

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        denoise(pipe, entry, [Row(make_job("b", nag=NAG), 0)], CPU, Hooks(stop))
    assert np.array_equal(run(pipe, entry, make_job("a")).pixels, before)


def test_steps_are_told_and_times_are_positive(pipe: Any, entry: Model, make_job: Make) -> None:
    steps: list[int] = []
    done = denoise(pipe, entry, [Row(make_job("a", num_inference_steps=3), 0)], CPU, Hooks(steps.append))
    assert steps == [1, 2, 3]
    assert min(done.encode_ms, done.denoise_ms, done.decode_ms) > 0


def test_true_cfg_runs_and_changes_the_picture(pipe: Any, entry: Model, make_job: Make) -> None:
    plain = run(pipe, entry, make_job("a", negative_prompt="a blue square"))
    guided = run(pipe, entry, make_job("a", negative_prompt="a blue square", guidance_scale=4.0))
    both = run(pipe, entry, make_job("a", negative_prompt="a blue square", guidance_scale=4.0, nag=NAG))
    assert np.abs(plain.pixels - guided.pixels).max() > TOLERANCE
    assert np.abs(both.pixels - guided.pixels).max() > TOLERANCE
    assert both.applied[0].applied


def test_guidance_has_its_pipelines_names(pipe: Any, entry: Model, make_job: Make) -> None:
    requests = [make_job("a", guidance_scale=4.0, negative_prompt="no").request, make_job("b").request]

    def arguments(cfg: str, embedded: float | None, requests: Any) -> dict[str, Any]:
        return cfg_arguments(pipe, entry.model_copy(update={"cfg": cfg, "embedded_guidance": embedded}), requests)

    negatives = {"negative_prompt": ["no", ""]}
    requests[1] = replace(requests[1], guidance_scale=4.0)
    true_cfg = {"true_cfg_scale": 4.0, "guidance_scale": 3.5, **negatives}
    assert arguments("true_cfg_scale", 3.5, requests) == true_cfg
    assert arguments("guidance_scale", None, requests) == {"guidance_scale": 4.0, **negatives}
    requests[1] = replace(requests[1], guidance_scale=2.0)
    scale = arguments("guidance_scale", None, requests)["guidance_scale"]
    assert isinstance(scale, RowScale)
    assert scale.scales == (4.0, 2.0)
    requests[1] = replace(requests[1], guidance_scale=1.0)
    assert arguments("guidance_scale", None, requests[1:]) == {"guidance_scale": 1.0}
    assert arguments("none", 4.5, requests[1:]) == {"guidance_scale": 4.5}


@pytest.mark.parametrize("name", ["z-image", "krea2"])
def test_no_cfg_is_asked_by_zero_of_pipelines_that_run_it_above_zero(name: str, entry: Model, make_job: Make) -> None:
    pipe = next(case for case in CASES if case.name == name).make(0)
    entry = entry.model_copy(update={"cfg": "guidance_scale", "embedded_guidance": None})
    assert cfg_arguments(pipe, entry, [make_job("a", guidance_scale=1.0).request]) == {"guidance_scale": 0.0}
    request = make_job("b", guidance_scale=4.0, negative_prompt="no").request
    assert cfg_arguments(pipe, entry, [request]) == {"guidance_scale": 4.0, "negative_prompt": ["no"]}


def test_rows_of_different_cfg_share_a_batch(pipe: Any, entry: Model, make_job: Make) -> None:
    jobs = [
        make_job("a", seed=1, negative_prompt="a blue square", guidance_scale=1.5),
        make_job("b", seed=2, prompt="a shape", negative_prompt="a triangle", guidance_scale=6.0, nag=NAG),
        make_job("c", seed=3, guidance_scale=3.0),
    ]
    together = run(pipe, entry, *jobs)
    for i, job in enumerate(jobs):
        assert np.abs(run(pipe, entry, job).pixels[0] - together.pixels[i]).max() < TOLERANCE, job.id
    weak, strong = (run(pipe, entry, make_job("a", guidance_scale=each)).pixels for each in (1.5, 6.0))
    assert np.abs(weak - strong).max() > TOLERANCE


def test_a_call_leaves_the_denoiser_before_it_decodes(pipe: Any, entry: Model, make_job: Make) -> None:
    """What another batch could then begin with: no hook, no processor, no step of this one."""
    seen: list[tuple[bool, str]] = []

    def look() -> None:
        seen.append((bool(pipe.transformer._forward_pre_hooks), type(attention.processor).__name__))

    attention = pipe.transformer.transformer_blocks[0].attn
    denoise(pipe, entry, [Row(make_job("a", nag=NAG), 0)], CPU, Hooks(on_denoised=look))
    assert seen == [(False, "FluxAttnProcessor")]


def test_calls_share_models_and_nothing_else(pipe: Any, entry: Model, make_job: Make) -> None:
    """A second call runs from the first line to the last while the first one is about to decode."""
    alone = run(pipe, entry, make_job("a", nag=NAG, num_inference_steps=3))
    other = make_job("b", seed=9, nag=NAG, num_inference_steps=5, guidance_scale=3.0)
    expected = run(pipe, entry, other)
    between: list[Denoised] = []
    row = Row(make_job("a", nag=NAG, num_inference_steps=3), 0)
    done = denoise(pipe, entry, [row], CPU, Hooks(on_denoised=lambda: between.append(run(pipe, entry, other))))
    assert np.array_equal(done.pixels, alone.pixels)
    assert np.array_equal(between[0].pixels, expected.pixels)
    assert done.applied == alone.applied
