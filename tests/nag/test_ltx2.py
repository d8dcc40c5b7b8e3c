"""LTX-2 guides picture and sound each by a negative prompt of its own, where both are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference

PROMPTS, NEGATIVE, OF_SOUND = ["a red circle", "a green shape"], "a blue square", "a triangle"
NUMBERS: dict[str, Any] = {"scale": 6.0, "tau": 2.0, "alpha": 0.6}


@pytest.fixture(scope="module", params=["ltx2", "ltx2.3"])
def ltx2(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


def texts_of_sound(subject: Subject, prompts: Any) -> dict[str, Any]:
    call = subject.calls(prompts, num_inference_steps=1)[0][0]
    return {name: value for name, value in call.items() if name.startswith("audio_encoder") and value is not None}


def test_the_sound_is_guided_by_its_own_negative_prompt(ltx2: Subject) -> None:
    expected = oracle.generate(
        ltx2, PROMPTS, [NEGATIVE] * 2, **NUMBERS, other_texts=texts_of_sound(ltx2, [OF_SOUND, "a"])
    )
    with nag.guide(ltx2.pipe, NEGATIVE, negative_audio_prompt=[OF_SOUND, "a"], **NUMBERS):
        guided = ltx2.generate(PROMPTS)
    assert difference(guided, expected) < 1e-5
    with nag.guide(ltx2.pipe, NEGATIVE, **NUMBERS):
        assert difference(ltx2.generate(PROMPTS), expected) > 1e-4


def test_the_sounds_negative_is_given_as_embeddings_with_its_mask(ltx2: Subject) -> None:
    with nag.guide(ltx2.pipe, NEGATIVE, negative_audio_prompt=OF_SOUND, **NUMBERS):
        expected = ltx2.generate()
    of_picture, of_sound = ltx2.encode(NEGATIVE), ltx2.encode(OF_SOUND)
    embeds = of_picture | {
        "negative_audio_prompt_embeds": of_sound["negative_audio_prompt_embeds"],
        "negative_audio_prompt_attention_mask": of_sound["negative_prompt_attention_mask"],
    }
    with nag.guide(ltx2.pipe, **embeds, **NUMBERS):
        assert torch.equal(ltx2.generate(), expected)
    short = embeds["negative_audio_prompt_embeds"][:, 1:]
    with (
        nag.guide(ltx2.pipe, **(of_picture | {"negative_audio_prompt_embeds": short})),
        pytest.raises(nag.InvalidParameter, match="as many tokens as negative_prompt_embeds, 15, got 14"),
    ):
        ltx2.generate()


def test_the_sounds_negative_comes_beside_the_pictures_one_or_one_per_prompt(ltx2: Subject) -> None:
    with (
        pytest.raises(nag.InvalidParameter, match="negative_audio_prompt: needs negative_prompt"),
        nag.guide(ltx2.pipe, **ltx2.encode(NEGATIVE), negative_audio_prompt=OF_SOUND),
    ):
        pass
    with (
        nag.guide(ltx2.pipe, NEGATIVE, negative_audio_prompt=[OF_SOUND] * 3),
        pytest.raises(nag.InvalidParameter, match="negative_audio_prompt: 3 values given for 2 prompts"),
    ):
        ltx2.generate(PROMPTS)


def test_other_families_take_no_negative_of_sound(flux: Subject) -> None:
    with pytest.raises(TypeError, match="negative_audio_prompt"), nag.guide(flux.pipe, "a", negative_audio_prompt="b"):
        pass
