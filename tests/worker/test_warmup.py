"""The first images of a model, and the batch size that they measure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from app.catalog import Catalog
from app.jobs import Job
from app.settings import Settings
from app.worker.engine.pipeline_call import PipelineCall
from app.worker.engine.shared_model import SharedModel
from app.worker.models.warmup import measure_batch_size, trial_jobs, trial_s
from app.worker.outputs.previews import LEARNT_MIN, Sketch
from app.worker.protocol import JobControl, Preview
from tests.worker.generate import generate, make_calls

Make = Callable[..., Job]
KNOWN = Catalog.known(Settings())


def seconds(**seconds: float | None) -> Callable[[int], float | None]:
    """`seconds(of_1=1.0)`: what a batch of each size takes."""
    return lambda size: seconds[f"of_{size}"]


def test_a_batch_grows_while_it_gains() -> None:
    found = measure_batch_size(seconds(of_1=1.0, of_2=1.1, of_4=1.9, of_8=3.7), 8)
    assert (found.images, found.why) == (4, "throughput")
    assert found.table() == "1: 1/s, 2: 1.82/s, 4: 2.11/s, 8: 2.16/s"


def test_a_batch_grows_while_memory_suffices() -> None:
    found = measure_batch_size(seconds(of_1=1.0, of_2=1.0, of_4=None), 8)
    assert (found.images, found.why) == (2, "memory")
    with pytest.raises(MemoryError):
        measure_batch_size(seconds(of_1=None), 8)


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_a_batch_grows_to_the_setting(most: int) -> None:
    found = measure_batch_size(lambda _: 1.0, most)
    assert (found.images, found.why) == (most, "setting")


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


def test_trial_images_share_every_denoiser_call_and_teach_the_previews(shared: SharedModel, make_job: Make) -> None:
    sketch, begun, rows, shown = Sketch(64), list[PipelineCall](), list[int](), list[Preview]()

    def make_call(job: Job) -> PipelineCall:
        begun.extend(make_calls(shared, job, sketch=sketch))
        return begun[-1]

    hook = shared.pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    taken_s = trial_s(shared.entry, make_call, LEARNT_MIN)
    hook.remove()
    steps = trial_jobs(shared.entry, 1)[0].request.num_inference_steps
    assert rows == [LEARNT_MIN] * steps
    assert all(call.made.applied.applied for call in begun)
    assert taken_s is not None
    assert taken_s > max(call.made.denoise_ms for call in begun) / 1000
    generate(shared, make_job("a", previews=1), sketch=sketch, control=JobControl(on_preview=shown.append))
    assert len(shown) == 1


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, ValueError])
def test_a_trial_says_where_memory_did_not_suffice_and_raises_what_else_it_meets(
    shared: SharedModel, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise kind("as told")

    hook = shared.pipe.transformer.register_forward_pre_hook(fail)
    try:
        if kind is ValueError:
            with pytest.raises(ValueError, match="as told"):
                trial_s(shared.entry, lambda job: make_calls(shared, job)[0], 1)
        else:
            assert trial_s(shared.entry, lambda job: make_calls(shared, job)[0], 1) is None
    finally:
        hook.remove()
