from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.api.requests.generation import JobBody
from app.api.resolver import resolve
from app.catalog import Catalog
from app.jobs import AppliedGuidance, LoraUse
from app.settings import Settings
from app.worker.outputs.parameters import parameters

GUIDED = AppliedGuidance(True, None, 4.0, 2.0, 0.5, 1.0, 0.5, 0.1, "vsf")


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "a 漢 shape", "n": 3, "seed": 5, "output_format": "webp", "output_compression": 30},
        {
            "prompt": "a shape", "seed": 5, "num_inference_steps": 3,
            "nag": {"scale": 4.0, "tau": 2.0, "alpha": 0.5, "end": 1.0, "scale_decay": 0.5, "start": 0.1,
                    "method": "vsf", "negative_prompt": "red"},
        },
        {"prompt": "a shape", "seed": 5, "negative_prompt": "red", "guidance_scale": 2.0},
    ],
)  # fmt: skip
def test_what_it_says_is_a_request_that_makes_the_same_again(asked: dict[str, Any]) -> None:
    catalog = Catalog.load(Settings())
    request = resolve(JobBody(**asked), catalog).request
    said = json.loads(parameters(request, 7, GUIDED if request.nag else AppliedGuidance(False, "not_requested")))
    assert said.pop("software").startswith("nag-server ")
    again = resolve(JobBody(**said), catalog).request
    assert again == replace(request, n=1, seed=7, output_format="png", output_compression=100)


def test_guidance_that_was_not_applied_is_not_said(make_job: Callable[..., Any]) -> None:
    said = json.loads(parameters(make_job("a").request, 7, AppliedGuidance(False, "scale_is_one")))
    assert "nag" not in said
    assert (said["seed"], said["model"]) == (7, "shapes-flux")


def test_loras_are_said_where_there_are_any(make_job: Callable[..., Any]) -> None:
    request = make_job("a").request
    uses = (LoraUse("ink", 0.5), LoraUse("style@9f86d081884c7d65", 1.0))
    said = json.loads(parameters(replace(request, loras=uses), 7, AppliedGuidance(False, "not_requested")))
    assert said["loras"] == [{"id": "ink", "scale": 0.5}, {"id": "style@9f86d081884c7d65", "scale": 1.0}]
    assert "loras" not in json.loads(parameters(request, 7, AppliedGuidance(False, "not_requested")))


def test_what_a_request_went_without_is_said(make_job: Callable[..., Any]) -> None:
    request = replace(make_job("a").request, alias="dall-e-3")
    warnings = ("style was left out: not supported",)
    said = json.loads(parameters(request, 7, AppliedGuidance(False, "not_requested"), warnings))
    assert (said["warnings"], said["model"], "alias" in said) == (list(warnings), "shapes-flux", False)
    assert "warnings" not in json.loads(parameters(request, 7, AppliedGuidance(False, "not_requested")))
