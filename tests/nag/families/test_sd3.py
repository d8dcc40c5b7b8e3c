"""Stable Diffusion 3: the call of skip-layer guidance."""

from __future__ import annotations

import pytest

import nag
from tests.nag.support import Subject, difference


@pytest.fixture
def subject() -> Subject:
    return Subject.named("sd3")


def test_the_call_that_skips_layers_is_the_prompts_and_guided(subject: Subject) -> None:
    options = {
        "cfg": True,
        "num_inference_steps": 2,
        "skip_guidance_layers": [1],
        "skip_layer_guidance_start": -1.0,
        "skip_layer_guidance_stop": 1.0,
    }
    prompts = ["a red circle", "a"]
    _, plain = subject.calls(prompts, **options)
    with nag.guide(subject.pipe, "a blue square", scale=9.0) as guidance:
        _, guided = subject.calls(prompts, **options)
    assert [len(output) for output in guided] == [4, 2, 4, 2]
    assert guidance.guided_steps == 4
    assert all(difference(a, b) > 1e-3 for a, b in zip(guided[1], plain[1], strict=True))
