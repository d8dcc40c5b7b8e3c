"""The first images of a model, which show how many can be denoised together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from app.catalog import Catalog, Model
from app.jobs import Job
from app.settings import Settings
from app.worker.engine.batch_limit import BatchLimit
from app.worker.engine.module_runner import ModuleRunner
from app.worker.engine.pipeline_call import PipelineCall
from app.worker.engine.shared_model import SharedModel
from app.worker.models import warmup
from app.worker.models.warmup import trial_jobs, trial_s, warm_up
from app.worker.outputs.previews import LEARNT_MIN, Sketch
from app.worker.protocol import JobControl, Preview
from app.worker.recorder import Recorder
from tests.worker.generate import CPU, generate, make_calls

Make = Callable[..., Job]
KNOWN = Catalog.known(Settings())


def make_runner(images_max: int = 8, *, is_fixed: bool = False) -> ModuleRunner:
    def make_limit(entry: Model) -> BatchLimit:
        return BatchLimit(entry.default_cost, images_max, is_fixed=is_fixed)

    return ModuleRunner(CPU, Recorder(), make_limit, lambda: False)


@pytest.fixture
def rows(shared: SharedModel) -> Iterator[list[int]]:
    """The rows of each denoiser call."""
    seen: list[int] = []
    hook = shared.pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize(("measures", "asked"), [(True, [1, 2, 4, 8]), (False, [1])])
def test_more_images_are_generated_as_long_as_that_is_faster(
    shared: SharedModel, measures: bool, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, seen, runner = {1: 1.0, 2: 1.1, 4: 1.9, 8: 3.7, 16: 7.4}, list[int](), make_runner(16)

    def trial_s(entry: Model, make_call: object, count: int, runner: ModuleRunner) -> float:
        seen.append(count)
        return seconds[count]

    monkeypatch.setattr(warmup, "trial_s", trial_s)
    warm_up(shared.entry, lambda job: make_calls(shared, job)[0], runner, measures=measures)
    assert seen == asked
    if measures:
        assert runner.limit(shared.entry) == 4 * shared.entry.default_cost


def test_no_more_images_are_generated_than_the_setting_allows(shared: SharedModel, rows: list[int]) -> None:
    warm_up(shared.entry, lambda job: make_calls(shared, job)[0], make_runner(1), measures=True)
    assert rows == [1, 1]


def test_a_model_whose_images_do_not_fit_beside_each_other_is_warm(shared: SharedModel, rows: list[int]) -> None:
    def check(*_: object) -> None:
        if 2 in rows:  # from then on, one image alone does not fit either
            raise torch.OutOfMemoryError("no memory")

    runner = make_runner(is_fixed=True)
    hook = shared.pipe.transformer.register_forward_pre_hook(check)
    try:
        warm_up(shared.entry, lambda job: make_calls(shared, job)[0], runner, measures=True)
    finally:
        hook.remove()
    assert rows == [1, 1, 2, 1, 1]
    assert runner.limit(shared.entry) == shared.entry.default_cost


@pytest.mark.parametrize("name", KNOWN)
def test_trial_jobs_are_guided_and_have_the_entrys_defaults(name: str) -> None:
    entry = KNOWN[name]
    jobs = trial_jobs(entry, 9)
    request = jobs[8].request
    assert len({(job.request.prompt, job.request.seed) for job in jobs}) == 9
    assert (request.nag is None) == (entry.nag is None)
    if request.nag is not None:
        assert request.nag.scale == entry.nag.scale
        assert request.nag.negative_prompt
    assert request.cost == entry.default_cost
    assert entry.num_inference_steps.min <= request.num_inference_steps <= entry.num_inference_steps.max
    assert (request.num_frames is None) == (entry.kind == "image")
    assert request.guidance_scale == entry.guidance_scale.default


def test_trial_images_share_every_denoiser_call_and_teach_the_previews(
    shared: SharedModel, make_job: Make, rows: list[int]
) -> None:
    sketch, begun, shown = Sketch(64), list[PipelineCall](), list[Preview]()

    def make_call(job: Job) -> PipelineCall:
        begun.extend(make_calls(shared, job, sketch=sketch))
        return begun[-1]

    taken_s = trial_s(shared.entry, make_call, LEARNT_MIN, make_runner())
    steps = trial_jobs(shared.entry, 1)[0].request.num_inference_steps
    assert rows == [LEARNT_MIN] * steps
    assert all(call.made.applied.applied for call in begun)
    assert taken_s > max(call.made.denoise_ms for call in begun) / 1000
    generate(shared, make_job("a", previews=1), sketch=sketch, control=JobControl(on_preview=shown.append))
    assert len(shown) == 1


@pytest.mark.parametrize(("kind", "raised"), [(torch.OutOfMemoryError, MemoryError), (ValueError, ValueError)])
def test_a_trial_of_one_image_that_fails_raises(
    shared: SharedModel, kind: type[Exception], raised: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise kind("as told")

    hook = shared.pipe.transformer.register_forward_pre_hook(fail)
    try:
        with pytest.raises(raised, match="one image does not fit" if raised is MemoryError else "as told"):
            trial_s(shared.entry, lambda job: make_calls(shared, job)[0], 1, make_runner())
    finally:
        hook.remove()


def test_a_trial_of_several_images_that_do_not_fit_together_lowers_the_limit(
    shared: SharedModel, rows: list[int]
) -> None:
    def check(*_: object) -> None:
        if rows[-1] > 2:
            raise torch.OutOfMemoryError("no memory")

    runner = make_runner(is_fixed=True)
    hook = shared.pipe.transformer.register_forward_pre_hook(check)
    try:
        trial_s(shared.entry, lambda job: make_calls(shared, job)[0], 8, runner)
    finally:
        hook.remove()
    assert rows[:4] == [8, 4, 2, 2]
    assert runner.limit(shared.entry) == 2 * shared.entry.default_cost
