"""What is particular to AudioLDM 2: two texts, each with attention modules of its own."""

from __future__ import annotations

import pytest
import torch
from transformers import VitsModel

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a small blue square on a white background"


@pytest.fixture
def subject() -> Subject:
    return Subject.named("audioldm2")


@pytest.mark.parametrize("zeroed", ["negative_prompt_embeds", "negative_generated_prompt_embeds"])
def test_each_of_the_two_texts_guides(subject: Subject, zeroed: str) -> None:
    negative = subject.encode(NEGATIVE)
    with nag.guide(subject.pipe, **negative, scale=6.0):
        by_both = subject.generate()
    with nag.guide(subject.pipe, **negative | {zeroed: torch.zeros_like(negative[zeroed])}, scale=6.0):
        assert difference(subject.generate(), by_both) > 1e-3


def test_padding_of_the_negative_is_masked(subject: Subject) -> None:
    negative = subject.encode(NEGATIVE)
    embeds = negative["negative_prompt_embeds"]
    longer = {
        "negative_prompt_embeds": torch.cat([embeds, torch.randn_like(embeds)], dim=1),
        "negative_prompt_attention_mask": torch.arange(2 * embeds.shape[1])[None] < embeds.shape[1],
    }
    with nag.guide(subject.pipe, **negative, scale=6.0):
        expected = subject.generate()
    with nag.guide(subject.pipe, **negative | longer, scale=6.0):
        assert difference(subject.generate(), expected) < 1e-5


def test_a_unet_whose_texts_have_as_many_channels_is_refused(subject: Subject) -> None:
    for module in subject.denoiser.modules():
        if getattr(module, "is_cross_attention", False):
            module.cross_attention_dim = 32
    with pytest.raises(nag.UnsupportedPipeline, match="as many channels"), nag.guide(subject.pipe, NEGATIVE):
        pass


def test_a_model_that_speaks_is_refused(subject: Subject) -> None:
    subject.pipe.text_encoder_2 = VitsModel.__new__(VitsModel)
    with pytest.raises(nag.UnsupportedPipeline, match="speaks a transcript"), nag.guide(subject.pipe, NEGATIVE):
        pass
