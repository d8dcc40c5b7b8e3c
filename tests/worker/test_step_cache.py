"""Step caches under requests that take turns: each has a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.catalog import Catalog, Model, StepCache
from app.jobs import Guidance, Job
from app.loading.pipeline import load
from app.settings import Settings
from app.worker.engine.shared_model import SharedModel
from nag._diffusers import step_cache_states
from tests.tiers import slow_but
from tests.worker.generate import CPU, generate

Make = Callable[..., Job]
NAG = Guidance(scale=5.0, tau=2.5, alpha=0.25, end=0.5, negative_prompt="a red shape")
KNOWN = Catalog.known(Settings())
METHODS: dict[str, dict[str, Any]] = {
    "first_block": {"threshold": 0.3},
    "taylorseer": {"cache_interval": 3, "disable_cache_before_step": 2, "taylor_factors_dtype": "float32"},
    "mag": {"mag_ratios": [1.0] * 8, "retention_ratio": 0.25, "max_skip_steps": 1},
}


@pytest.fixture(params=slow_but(["first_block"], METHODS))
def model(request: pytest.FixtureRequest, entry: Model) -> Any:
    """shapes-flux with a step cache that skips some steps."""
    cache = StepCache(method=request.param, options=METHODS[request.param])
    steps = entry.num_inference_steps.model_copy(update={"default": 8, "min": 8, "max": 8})
    entry = entry.model_copy(update={"cache": cache, "num_inference_steps": steps})
    model = SharedModel(entry, load(entry, CPU))
    yield model
    model.close()
    assert "cache_context" not in vars(model.pipe.transformer)


def test_requests_side_by_side_are_made_as_each_is_alone(
    model: SharedModel, shared: SharedModel, make_job: Make
) -> None:
    jobs = [
        make_job("a", seed=1, num_inference_steps=8),
        make_job("b", seed=2, num_inference_steps=8, nag=NAG),  # whose sequences change their length in mid-run
        make_job("c", seed=3, num_inference_steps=8, guidance_scale=4.0, negative_prompt="a blue circle"),
    ]
    alone = [generate(model, job)[0].pixels for job in jobs]
    together = generate(model, *jobs)
    plain = generate(shared, *jobs)
    for image, one, other in zip(together, alone, plain, strict=True):
        assert image.batch_size == 1
        assert np.abs(image.pixels - one).max() < 1e-5
        assert np.abs(image.pixels - other.pixels).max() > 1e-3  # some of the steps were skipped


def test_nothing_is_kept_of_a_request_that_has_ended(model: SharedModel, make_job: Make) -> None:
    generate(model, make_job("a", seed=1, num_inference_steps=8, nag=NAG))
    states = step_cache_states(model.pipe.transformer)
    assert states
    assert not any(state._state_cache for state in states)


def test_requests_of_a_cross_attending_video_model_are_kept_apart(make_job: Make) -> None:
    entry = KNOWN["shapes-wan"].model_copy(
        update={"cache": StepCache(method="first_block", options={"threshold": 2.0})}
    )
    model = SharedModel(entry, load(entry, CPU))
    options = {"model": entry.id, "width": 32, "height": 32, "num_frames": 5, "fps": 8, "num_inference_steps": 6}
    jobs = [
        make_job("a", seed=1, **options),
        make_job("b", seed=2, nag=NAG, **options),
        make_job("c", seed=3, nag=NAG, guidance_scale=4.0, negative_prompt="a blue circle", **options),
    ]
    alone = [generate(model, job)[0].pixels for job in jobs]
    for video, one in zip(generate(model, *jobs), alone, strict=True):
        assert np.abs(video.pixels - one).max() < 1e-5
    plain = SharedModel(entry, load(entry.model_copy(update={"cache": None}), CPU))
    differences = [np.abs(generate(plain, job)[0].pixels - one).max() for job, one in zip(jobs, alone, strict=True)]
    assert max(differences) > 1e-3
