from __future__ import annotations

from typing import Any

import pytest

import nag
from tests.nag.support import Subject, difference


@pytest.fixture
def prx() -> Subject:
    return Subject.named("prx")


def test_under_cfg_of_one_prompt_the_unconditional_row_stays_plain(prx: Subject) -> None:
    # Two prompts under CFG fail in the pipeline itself, which makes timesteps for one.
    options: dict[str, Any] = {"guidance_scale": 4.0, "num_inference_steps": 1}
    (plain,) = prx.calls(**options)[1]
    with nag.guide(prx.pipe, "a blue square", scale=9.0):
        (guided,) = prx.calls(**options)[1]
    assert difference(guided[0], plain[0]) < 1e-6
    assert difference(guided[1], plain[1]) > 1e-3
