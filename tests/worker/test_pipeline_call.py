"""Pipeline calls that meet at the shared modules: each image is what it is alone, and each call keeps its own state."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

import nag
from app.catalog import Model
from app.jobs import AppliedGuidance, Guidance, Job
from app.worker.engine import pipelines
from app.worker.engine.pipeline_call import PipelineCall, call_module, run_calls
from app.worker.engine.pipelines import cfg_arguments
from app.worker.engine.shared_model import SharedModel
from app.worker.outputs.previews import Sketch
from app.worker.prompts.prompt_checks import PromptTooLong
from app.worker.protocol import JobCancelled, JobControl
from nag.families.family import denoisers_of
from tests.inputs import edit
from tests.tiny import find_case
from tests.worker.generate import CPU, difference, generate, make_calls
from tests.worker.mixes import FILES, HALF, NAG, alone, image_mix, loaded, video_mix

Make = Callable[..., Job]
VISIBLE = 2e-4  # of pixels in [0, 1]: more than sums in another order differ by


def with_scheduler(model: SharedModel, kind: Any, **changes: Any) -> SharedModel:
    """The same modules under another scheduler."""
    other = copy.copy(model)
    other._tasks = {}
    other.pipe = copy.copy(model.pipe)
    other.pipe.scheduler = kind.from_config(model.pipe.scheduler.config, **changes)
    return other


@contextmanager
def watched(module: Any) -> Iterator[list[int]]:
    """The number of rows in each call of a denoiser."""
    rows: list[int] = []

    def note(_: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        rows.append(len(kwargs["hidden_states" if "hidden_states" in kwargs else "sample"]))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def step(call: PipelineCall) -> None:
    """Runs the module call that one pipeline call waits for."""
    with torch.no_grad():
        call.resume(call_module([call])[0])


def kind_of(call: PipelineCall) -> str:
    """Returns the kind of the module that a pipeline call waits for."""
    assert call.suspended is not None
    return call.suspended.module.kind


def leave(call: PipelineCall) -> None:
    with torch.no_grad():
        call.throw(JobCancelled())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers' DPMSolver
@pytest.mark.parametrize(
    ("name", "mix", "scheduler", "options"),
    [
        ("shapes-flux", image_mix, FlowMatchEulerDiscreteScheduler, {"shift": 1.0}),
        ("shapes-sd", image_mix, DPMSolverMultistepScheduler, {}),
        ("shapes-wan", video_mix, FlowMatchEulerDiscreteScheduler, {"shift": 5.0}),
    ],
)
def test_each_of_a_mix_is_what_it_is_alone(
    make_job: Make, name: str, mix: Callable[[Make, str], list[Job]], scheduler: Any, options: dict[str, Any]
) -> None:
    model = loaded(name)
    models = itertools.cycle([model, model, with_scheduler(model, scheduler, **options)])
    jobs = [(job, next(models)) for job in mix(make_job, name)]
    assert len(jobs) >= 16
    solo = [result for job, own in jobs for result in (alone(job) if own is model else generate(own, job, files=FILES))]
    sketch = Sketch(64)
    with watched(denoisers_of(model.pipe)[0]) as rows:
        calls = [call for job, own in jobs for call in make_calls(own, job, files=FILES, sketch=sketch)]
        run_calls(calls)
    assert max(rows) >= 6  # they did share calls
    for call, expected in zip(calls, solo, strict=True):
        assert difference(call.made, expected) <= 1, call.job.id
        assert call.made.applied == expected.applied, call.job.id
        assert call.made.seed == expected.seed


def test_an_image_is_the_pipeline_s_own(shared: SharedModel, make_job: Make) -> None:
    pipe = pipelines.load(shared.entry, CPU)
    for job in (make_job("a", nag=NAG, num_inference_steps=3), make_job("b", guidance_scale=3.0, seed=8)):
        request = job.request
        arguments = {
            "prompt": request.prompt,
            "generator": torch.Generator().manual_seed(request.seed),
            "num_inference_steps": request.num_inference_steps,
            "width": 64,
            "height": 64,
            "output_type": "np",
            **cfg_arguments(pipe, shared.entry, request),
            **shared.entry.call,
        }
        if request.nag is None:
            expected = pipe(**arguments).images[0]
        else:
            numbers = {name: getattr(NAG, name) for name in ("scale", "tau", "alpha", "end", "negative_prompt")}
            with nag.guide(pipe, **numbers):
                expected = pipe(**arguments).images[0]
        (made,) = generate(shared, job)
        assert np.abs(made.pixels - expected).max() < 1e-5


def test_the_seed_and_the_guidance_change_the_image(shared: SharedModel, make_job: Make) -> None:
    jobs = [make_job("a", seed=1), make_job("b", seed=2), make_job("c", seed=1, nag=NAG)]
    made = generate(shared, *jobs)
    assert np.abs(made[0].pixels - made[1].pixels).max() > VISIBLE
    assert np.abs(made[0].pixels - made[2].pixels).max() > VISIBLE


def test_true_cfg_and_its_scale_change_the_image(shared: SharedModel, make_job: Make) -> None:
    negative = {"negative_prompt": "a blue square"}
    plain, weak, strong, both = generate(
        shared,
        make_job("plain", **negative),
        make_job("weak", guidance_scale=1.5, **negative),
        make_job("strong", guidance_scale=6.0, **negative),
        make_job("both", guidance_scale=6.0, nag=NAG, **negative),
    )
    for one, other in ((plain, weak), (weak, strong), (strong, both)):
        assert np.abs(one.pixels - other.pixels).max() > VISIBLE
    assert both.applied.applied


@pytest.mark.parametrize(
    ("guidance", "applied"),
    [
        (None, AppliedGuidance(False, "not_requested")),
        (Guidance(1.0, 2.5, 0.25, 1.0, "x"), AppliedGuidance(False, "scale_is_1")),
        (Guidance(5.0, 2.5, 0.0, 1.0, "x"), AppliedGuidance(False, "alpha_is_0")),
        (Guidance(5.0, 2.5, 0.25, 0.0, "x"), AppliedGuidance(False, "end_is_0")),
        (Guidance(5.0, 2.5, 0.5, 1.0, "x", 0.75), AppliedGuidance(True, None, 5.0, 2.5, 0.5, 1.0, 0.75, 0.0, "nag")),
        (
            Guidance(5.0, 2.5, 0.5, 1.0, "x", 0.0, 0.1, "vsf"),
            AppliedGuidance(True, None, 5.0, 2.5, 0.5, 1.0, 0.0, 0.1, "vsf"),
        ),
        (
            Guidance(5.0, 2.5, 0.5, 1.0, "x", start=0.999),
            AppliedGuidance(False, "no_step_within_start_and_end", 5.0, 2.5, 0.5, 1.0, 0.0, 0.999, "nag"),
        ),
    ],
)
def test_the_applied_guidance_is_reported_alone_and_beside_others(
    shared: SharedModel, make_job: Make, guidance: Guidance | None, applied: AppliedGuidance
) -> None:
    assert generate(shared, make_job("a", nag=guidance))[0].applied == applied
    made = generate(shared, make_job("b", nag=NAG), make_job("a", nag=guidance))
    assert [made[0].applied.applied, made[1].applied] == [True, applied]


def test_images_of_a_job_count_up_from_its_seed(shared: SharedModel, make_job: Make) -> None:
    made = generate(shared, make_job("a", n=3, seed=2**64 - 2))
    assert [result.seed for result in made] == [2**64 - 2, 2**64 - 1, 0]
    (alone,) = generate(shared, make_job("b", seed=0))
    assert difference(alone, made[2]) <= 1


def test_calls_of_many_step_counts_share_the_denoiser_s_calls(shared: SharedModel, make_job: Make) -> None:
    jobs = [make_job(f"{steps}", num_inference_steps=steps) for steps in range(2, 10)]
    with watched(shared.pipe.transformer) as rows:
        made = generate(shared, *jobs)
    assert rows == [8, 8, 7, 6, 5, 4, 3, 2, 1]
    assert [result.batch_size for result in made] == [8] * 8


def test_both_calls_of_cfg_share_with_other_requests(shared: SharedModel, make_job: Make) -> None:
    """Flux calls its transformer twice per step for true CFG; guided and plain rows share both calls."""
    jobs = [make_job("a", guidance_scale=3.0), make_job("b", guidance_scale=3.0, nag=NAG), make_job("c", nag=NAG)]
    with watched(shared.pipe.transformer) as rows:
        made = generate(shared, *jobs)
    assert rows == [3, 3, 2, 2]
    assert made[0].batch_size == 3  # requests, not rows


def test_one_call_visits_its_modules_in_turn(shared: SharedModel, make_job: Make) -> None:
    control = JobControl()
    (call,) = make_calls(shared, make_job("a", num_inference_steps=3), control=control)
    assert call.suspended is None
    kinds, steps = [], []
    with torch.no_grad():
        call.start()
    while not call.has_ended:
        kinds.append(kind_of(call))
        steps.append(call.steps_done)
        step(call)
    assert kinds == ["text", "text", "denoiser", "denoiser", "denoiser", "decode"]
    assert steps == [0, 0, 0, 1, 2, 3]
    made = call.made
    assert min(made.encode_ms, made.denoise_ms, made.decode_ms) > 0
    assert 0 < made.begun_at <= made.first_step_at


@pytest.mark.parametrize("name", ["shapes-flux", "shapes-sd"])
@pytest.mark.parametrize("mask", [None, "soft"])
def test_an_edit_s_call_is_suspended_at_each_step_as_well(make_job: Make, name: str, mask: str | None) -> None:
    job = make_job("a", model=name, num_inference_steps=6, **edit(0.5, "red", mask), nag=NAG)
    (call,) = make_calls(loaded(name), job, files=FILES)
    kinds = []
    with torch.no_grad():
        call.start()
    while not call.has_ended:
        kinds.append(call.suspended.module.kind)
        step(call)
    assert call.error is None
    assert kinds.count("denoiser") == job.request.steps == 3
    assert kinds.index("encode") < kinds.index("denoiser")
    assert kinds[-1] == "decode"


def test_the_cost_is_that_of_all_rows(make_job: Make) -> None:
    """Stable Diffusion has both rows of CFG in one call of its UNet."""
    model = loaded("shapes-sd")
    jobs = [make_job("a", model="shapes-sd"), make_job("b", model="shapes-sd", guidance_scale=3.0, width=32)]
    calls = make_calls(model, *jobs)
    costs = []
    for call in calls:
        with torch.no_grad():
            call.start()
        while call.suspended.module.kind != "denoiser":
            step(call)
        costs.append(call.cost)
        leave(call)
    assert costs == [64 * 64, 2 * 32 * 64]


def test_a_call_that_is_left_leaves_nothing_behind(shared: SharedModel, make_job: Make) -> None:
    (before,) = generate(shared, make_job("a"))
    processors = [type(processor) for processor in shared.pipe.transformer.attn_processors.values()]
    (call,) = make_calls(shared, make_job("b", nag=NAG, guidance_scale=3.0))
    with torch.no_grad():
        call.start()
    while call.suspended.module.kind != "denoiser":
        step(call)
    step(call)
    leave(call)
    assert isinstance(call.error, JobCancelled)
    assert call.has_ended
    assert [type(processor) for processor in shared.pipe.transformer.attn_processors.values()] == processors
    (after,) = generate(shared, make_job("a"))
    assert np.array_equal(before.pixels, after.pixels)


def test_calls_share_modules_and_nothing_else(shared: SharedModel, make_job: Make) -> None:
    """A second call runs from its first line to its last between two steps of the first one."""
    first = make_job("a", nag=NAG, num_inference_steps=3)
    second = make_job("b", seed=9, nag=HALF, num_inference_steps=5, guidance_scale=3.0)
    solo = [generate(shared, job)[0] for job in (first, second)]
    (call,) = make_calls(shared, first)
    with torch.no_grad():
        call.start()
    while not call.steps_done:
        step(call)
    (between,) = generate(shared, second)
    while not call.has_ended:
        step(call)
    assert np.array_equal(call.made.pixels, solo[0].pixels)
    assert np.array_equal(between.pixels, solo[1].pixels)
    assert call.made.applied == solo[0].applied


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_call_ends_before_its_first_step_if_its_prompt_is_not_read_whole(
    shared: SharedModel, make_job: Make, strict: bool
) -> None:
    too_long, whole = make_job("a", prompt="a red circle " * 40, strict=strict), make_job("b", seed=3)
    calls = make_calls(shared, too_long, whole)
    with watched(shared.pipe.transformer) as rows:
        if strict:
            with pytest.raises(PromptTooLong, match="prompt: the model reads"):
                run_calls(calls)
        else:
            run_calls(calls)
    assert rows == ([1, 1] if strict else [2, 2])
    assert bool(calls[0].made.warnings) is not strict  # raised instead
    assert difference(calls[1].made, generate(shared, whole)[0]) <= 1


def test_calls_that_end_in_another_order_leave_gradients_as_they_were(shared: SharedModel, make_job: Make) -> None:
    assert torch.is_grad_enabled()
    generate(shared, make_job("a", num_inference_steps=1), make_job("b", num_inference_steps=3))
    assert torch.is_grad_enabled()
    with torch.no_grad():
        generate(shared, make_job("a", num_inference_steps=3), make_job("b", num_inference_steps=1))
        assert not torch.is_grad_enabled()


def test_a_closed_model_is_the_pipeline_that_was_loaded(entry: Model, make_job: Make) -> None:
    pipe = pipelines.load(entry, CPU)
    model = SharedModel(entry, pipe)
    generate(model, make_job("a", nag=NAG))
    model.close()
    assert not {"decode", "encode", "modules"} & vars(pipe.vae).keys()
    assert all(part._compiled_call_impl is None for part in (pipe.transformer, pipe.text_encoder, pipe.vae))
    assert {type(processor).__name__ for processor in pipe.transformer.attn_processors.values()} == {
        "FluxAttnProcessor"
    }
    calls = make_calls(model, make_job("b"))
    with torch.no_grad():
        calls[0].start()
    assert calls[0].has_ended  # its modules no longer suspend it
    assert calls[0].error is None


def test_guidance_has_its_pipeline_s_names(shared: SharedModel, make_job: Make) -> None:
    request = make_job("a", guidance_scale=4.0, negative_prompt="no").request

    def arguments(cfg: str, embedded: float | None, **changes: Any) -> dict[str, Any]:
        entry = shared.entry.model_copy(update={"cfg": cfg, "embedded_guidance": embedded})
        return cfg_arguments(shared.pipe, entry, replace(request, **changes))

    negatives = {"negative_prompt": ["no"]}
    assert arguments("true_cfg_scale", 3.5) == {"true_cfg_scale": 4.0, "guidance_scale": 3.5, **negatives}
    assert arguments("guidance_scale", None) == {"guidance_scale": 4.0, **negatives}
    assert arguments("guidance_scale", None, negative_prompt=None)["negative_prompt"] == [""]
    assert arguments("guidance_scale", None, guidance_scale=1.0) == {"guidance_scale": 1.0}
    assert arguments("none", 4.5, guidance_scale=1.0) == {"guidance_scale": 4.5}


@pytest.mark.parametrize("name", ["z-image", "krea2"])
def test_no_cfg_is_asked_by_zero_of_pipelines_that_run_it_above_zero(name: str, entry: Model, make_job: Make) -> None:
    pipe = find_case(name).make(0)
    entry = entry.model_copy(update={"cfg": "guidance_scale", "embedded_guidance": None})
    assert cfg_arguments(pipe, entry, make_job("a", guidance_scale=1.0).request) == {"guidance_scale": 0.0}
    request = make_job("b", guidance_scale=4.0, negative_prompt="no").request
    assert cfg_arguments(pipe, entry, request) == {"guidance_scale": 4.0, "negative_prompt": ["no"]}
