"""Lumina 2: a negative prompt is read without the system prompt, and its tokens take the places they have alone."""

from __future__ import annotations

from typing import Any

import pytest

import nag
from tests.nag.support import Subject, difference


@pytest.fixture
def subject() -> Subject:
    return Subject.named("lumina2")


def test_a_negative_prompt_gets_no_system_prompt(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    encode = subject.pipe._get_gemma_prompt_embeds

    def note(prompt: str, *args: Any, **kwargs: Any) -> Any:
        read.extend(prompt)
        return encode(prompt, *args, **kwargs)

    monkeypatch.setattr(subject.pipe, "_get_gemma_prompt_embeds", note)
    with nag.guide(subject.pipe, "a blue square"):
        subject.generate()
    assert "a blue square" in read
    assert sum("<Prompt Start>" in each for each in read) == 1


@pytest.mark.parametrize("negative", ["a", "a small blue square on a white background"])
def test_the_negatives_text_is_what_the_model_makes_of_it_as_a_prompt(subject: Subject, negative: str) -> None:
    """The tokens that follow the image, and their keys' places, against the model's own for that prompt."""
    seen = []
    layer = subject.denoiser.layers[0]
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(args))
    subject.generate(negative, num_inference_steps=1)
    handle.remove()
    count = len(negative.split()) + 1
    alone, image = [args[:, :count] for args in (seen[0][0], seen[0][2])], seen[0][0].shape[1] - count
    seen.clear()
    with nag.guide(subject.pipe, negative):
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(args))
        subject.generate("a red circle", num_inference_steps=1)
        handle.remove()
    beside = [args[:, 4 + image :][:, :count] for args in (seen[0][0], seen[0][2])]
    for a, b in zip(alone, beside, strict=True):
        assert difference(b, a) < 1e-6
