"""Qwen-Image with reference images: they are image tokens, whatever the prompts' lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import STEPS, Subject, difference
from tests.tiny.qwen_image import EDITS, small_images

NEGATIVE = "a blue square"


def apart(a: torch.Tensor, b: torch.Tensor) -> Any:
    return difference(a[0], b[0])  # the first picture, which may be several layers


@pytest.fixture(params=EDITS, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with small_images():
        yield Subject(request.param)


def test_it_is_the_method_written_out_on_two_prompts(subject: Subject) -> None:
    expected = oracle.generate(subject, "a red circle", NEGATIVE, 12.0, 1.2, 1.0)
    plain = subject.generate()
    with nag.guide(subject.pipe, NEGATIVE, scale=12.0, tau=1.2, alpha=1.0) as guidance:
        guided = subject.generate()
    assert guidance.guided_steps == STEPS
    assert apart(guided, expected) < 1e-5
    assert apart(guided, plain) > 0.01
    assert apart(subject.generate(), plain) == 0


def test_a_padded_negative_is_the_negative(subject: Subject) -> None:
    given = subject.encode("a")["negative_prompt_embeds"]
    padded = torch.cat([given, torch.randn(1, 4, given.shape[-1])], dim=1)
    mask = (torch.arange(padded.shape[1]) < given.shape[1])[None]
    with nag.guide(subject.pipe, negative_prompt_embeds=given, scale=9.0):
        expected = subject.generate()
    with nag.guide(subject.pipe, negative_prompt_embeds=padded, negative_prompt_embeds_mask=mask, scale=9.0):
        assert apart(subject.generate(), expected) < 1e-5


def test_the_unconditional_call_stays_plain(subject: Subject) -> None:
    _, plain = subject.calls(cfg=True, num_inference_steps=1)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        _, guided = subject.calls(cfg=True, num_inference_steps=1)
    assert difference(guided[0], plain[0]) > 1e-3
    assert difference(guided[1], plain[1]) < 1e-6
