"""Image-to-video of Wan 2.1, whose processors take the last 512 tokens for the text."""

from __future__ import annotations

import pytest
import torch

import nag
from tests.nag.support import STEPS, Subject, difference

NEGATIVE = "a blue square"


def of(name: str) -> Subject:
    return Subject.named(name)


@pytest.fixture(scope="module")
def i2v() -> Subject:
    return of("wan-i2v")


def test_a_negative_given_by_fewer_tokens_is_those_tokens_alone(i2v: Subject) -> None:
    """Tokens given twice change no average over them."""
    embeds = i2v.encode(NEGATIVE)["negative_prompt_embeds"]
    with nag.guide(i2v.pipe, negative_prompt_embeds=embeds[:, :200]):
        once = i2v.generate()
    with nag.guide(i2v.pipe, negative_prompt_embeds=embeds[:, :200].repeat(1, 2, 1)):
        assert difference(i2v.generate(), once) < 1e-5
    with nag.guide(i2v.pipe, negative_prompt_embeds=embeds):
        assert difference(i2v.generate(), once) > 1e-3


def test_a_negative_longer_than_the_models_text_is_refused(i2v: Subject) -> None:
    embeds = i2v.encode(NEGATIVE)["negative_prompt_embeds"]
    with (
        nag.guide(i2v.pipe, negative_prompt_embeds=embeds.repeat(1, 2, 1)),
        pytest.raises(nag.InvalidParameter, match="512"),
    ):
        i2v.generate()


@pytest.mark.parametrize("name", ["wan-two", "wan-late"])
def test_both_denoisers_or_the_second_alone_are_guided_at_every_step(name: str) -> None:
    subject = of(name)
    with nag.guide(subject.pipe, NEGATIVE) as guidance:
        subject.generate()
    assert guidance.guided_steps == STEPS


def test_the_image_still_reaches_a_guided_video(i2v: Subject) -> None:
    image = i2v.case.options["image"]
    with nag.guide(i2v.pipe, NEGATIVE):
        seen, other = i2v.generate(), i2v.generate(image=image.rotate(90))
    assert difference(seen, other) > 1e-3
    assert torch.isfinite(seen).all()
