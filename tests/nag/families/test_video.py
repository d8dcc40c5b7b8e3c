"""What is particular to some video pipelines: other guidances beside, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import nag
from tests.nag.support import STEPS, Subject

NEGATIVE = "a blue square"


def of(name: str) -> Subject:
    return Subject.named(name)


def test_calls_that_other_guidances_compare_with_are_not_counted_as_the_prompts() -> None:
    subject = of("ltx2.3")
    others: dict[str, Any] = {"stg_scale": 1.0, "modality_scale": 3.0, "spatio_temporal_guidance_blocks": [0]}
    with nag.guide(subject.pipe, NEGATIVE) as guidance:
        calls, _ = subject.calls(**others)
    assert (guidance.guided_steps, len(calls)) == (STEPS, 3 * STEPS)


def test_a_prompt_for_each_frame_is_refused() -> None:
    pipe = of("animatediff").pipe
    pipe.enable_free_noise(context_length=2, context_stride=1)
    with pytest.raises(nag.UnsupportedPipeline, match="FreeNoise"), nag.guide(pipe, NEGATIVE):
        pass
