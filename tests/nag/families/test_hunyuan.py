"""The Hunyuan models' second text, and the image that HunyuanVideo 1.5 reads beside its text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference
from tests.tiny import find_case

PROMPTS = ['a "red" circle', "a green shape"]


@pytest.fixture(params=["hunyuan-image", "hunyuan-15"])
def glyphs(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


@pytest.mark.parametrize("negatives", [['a "blue" square', "a triangle"], ["a blue square", 'a "green" square']])
def test_what_stands_in_quotes_is_guided_too(glyphs: Subject, negatives: list[str]) -> None:
    expected = oracle.generate(glyphs, PROMPTS, negatives, 9.0, 2.5, 0.8)
    with nag.guide(glyphs.pipe, negatives, scale=9.0, tau=2.5, alpha=0.8):
        guided = glyphs.generate(PROMPTS)
    assert difference(guided, expected) < 1e-5
    with nag.guide(glyphs.pipe, [each.replace('"', "") for each in negatives], scale=9.0, tau=2.5, alpha=0.8):
        assert difference(glyphs.generate(PROMPTS), guided) > 1e-3


def test_an_image_beside_the_text_is_seen_by_both_prompts_and_not_guided() -> None:
    subject = Subject(replace(find_case("hunyuan-15"), shared=5))
    image = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))

    def show(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return args, kwargs | {"image_embeds": image.repeat(len(kwargs["hidden_states"]), 1, 1)}

    handle = subject.denoiser.register_forward_pre_hook(show, with_kwargs=True)
    negatives = ["a blue square", 'a "green" square']
    expected = oracle.generate(subject, PROMPTS, negatives, 9.0, 2.5, 0.8)
    with nag.guide(subject.pipe, negatives, scale=9.0, tau=2.5, alpha=0.8):
        guided = subject.generate(PROMPTS)
    handle.remove()
    assert difference(guided, expected) < 1e-5
    with nag.guide(subject.pipe, negatives, scale=9.0, tau=2.5, alpha=0.8):
        assert difference(subject.generate(PROMPTS), guided) > 1e-3
