"""A scale that falls on the way to the end, and guidance that starts late."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

import nag
from nag.processors import guided
from tests.nag.support import STEPS, Subject, difference
from tests.tiny import CASES

NEGATIVE = "a blue square"


@pytest.fixture(params=["flux", "sdxl", "wan"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


def test_the_former_name_is_taken_with_a_warning() -> None:
    pipe = Subject(CASES[0]).pipe
    guide = nag.guide(pipe, NEGATIVE, anneal=[0.5])
    with pytest.warns(DeprecationWarning, match="use scale_decay") as caught:
        guidance = guide.__enter__()
    assert caught[0].filename == __file__
    guide.__exit__(None, None, None)
    with pytest.warns(DeprecationWarning, match="use scale_decay"):
        assert guidance.params[0].anneal == 0.5
    with (
        pytest.warns(DeprecationWarning, match="anneal"),
        pytest.raises(nag.InvalidParameter, match=r"anneal: is a former name of scale_decay; got 0\.5, and .* 1"),
        nag.guide(pipe, NEGATIVE, anneal=0.5, scale_decay=1),
    ):
        pass


def test_each_step_has_the_scale_of_its_timestep(subject: Subject) -> None:
    timesteps: list[float] = []
    by_step: list[set[float]] = []

    def record(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        timesteps.append(subject.case.timestep(float(torch.as_tensor(timestep).max())))
        return kwargs

    def rule(
        z_positive: torch.Tensor,
        z_negative: torch.Tensor,
        scale: torch.Tensor,
        tau: float,
        alpha: float,
        sum_heads: Any,
    ) -> Any:
        by_step[-1].add(float(scale.max()))
        return nag.normalized_attention_guidance(z_positive, z_negative, scale, tau, alpha)

    with (
        subject.denoiser.register_forward_pre_hook(lambda *_: by_step.append(set())),
        patch.object(guided, "normalized_attention_guidance", rule),
        nag.guide(subject.pipe, NEGATIVE, scale=9.0, scale_decay=0.75),
    ):
        decayed = subject.generate(callback_on_step_end=record)
    assert [each for (each,) in by_step] == pytest.approx([1 + 8 * (1 - 0.75 * (1 - t / 1000)) for t in timesteps])
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        assert difference(subject.generate(), decayed) > 1e-4


def test_guidance_starts_by_the_timestep_within_a_run(subject: Subject) -> None:
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, start=0.3) as guidance:
        late = subject.generate()
    assert 0 < guidance.guided_steps < STEPS == guidance.guided_steps + guidance.plain_steps
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        assert difference(subject.generate(), late) > 1e-4
