"""What is particular to Bria FIBO 2: counts of gist tokens that follow the text, and images of a caption's text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from PIL import Image

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference

LONG = "a small blue square on a white background"
#: Tokens of the image of each case's size, and gist tokens of prompts of three words and of LONG.
IMAGE, GIST = 64, {"a red circle": 4, LONG: 6}
CAPTION = json.dumps({"short_description": "a red circle", "text_render": [{"text": "a"}]})


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.named("fibo2")


def call_of(subject: Subject, prompts: Any) -> Any:
    return subject.calls(prompts, num_inference_steps=1)[0][0]


@torch.no_grad()
@pytest.mark.parametrize("prompt", GIST)
def test_prompts_may_have_unequal_counts_of_gist(subject: Subject, prompt: str) -> None:
    other = next(text for text in GIST if text != prompt)
    positive, texts = call_of(subject, prompt), call_of(subject, other)
    negative = nag.NegativeEmbeds(texts["encoder_hidden_states"].transpose(1, 2))

    def image_queries(queries: int, keys: int, lane: int) -> slice | None:
        return slice(GIST[(prompt, other)[lane]], None) if queries > IMAGE else None

    expected = oracle.call(
        subject.denoiser.forward,
        positive,
        positive | {"encoder_hidden_states": texts["encoder_hidden_states"]},
        (4.0, 1.5, 0.7),
        image_queries,
    )[0]
    with (
        nag.attach(subject.denoiser) as attached,
        attached.rows([nag.RowGuidance(negative, scale=4.0, tau=1.5, alpha=0.7)]),
    ):
        guided = subject.denoiser(**positive)[0]
    assert difference(guided, expected) < 1e-5
    assert difference(guided, subject.denoiser(**positive)[0]) > 0.01


def test_the_gist_stands_behind_the_image_where_a_batch_pads_it(subject: Subject) -> None:
    with nag.guide(subject.pipe, ["a blue square", LONG], scale=9.0):
        both = subject.generate([LONG, "a red circle"])
    for row, (prompt, negative) in enumerate([(LONG, "a blue square"), ("a red circle", LONG)]):
        with nag.guide(subject.pipe, negative, scale=9.0):
            assert difference(subject.generate(prompt, seeds=[row])[0], both[row]) < 1e-5


def test_images_of_the_captions_text_are_no_part_of_the_negative(subject: Subject) -> None:
    """The pipeline shows them from a later step on: then it passes other embeddings for the same prompt."""
    options: dict[str, Any] = {"text_images": [Image.new("RGB", (32, 32), (200, 40, 40))]}
    with nag.guide(subject.pipe, "a blue square", scale=6.0) as guidance:
        by_text = subject.generate(CAPTION, cfg=True, **options)
    assert guidance.guided_steps == subject.steps
    with nag.guide(subject.pipe, **subject.encode("a blue square"), scale=6.0):
        assert torch.equal(subject.generate(CAPTION, cfg=True, **options), by_text)
    assert difference(subject.generate(CAPTION, cfg=True, **options), by_text) > 0.01


def test_embeddings_with_the_layers_ahead_of_the_tokens_are_refused(subject: Subject) -> None:
    embeds = subject.encode("a blue square")["negative_prompt_embeds"].transpose(1, 2)
    with (
        nag.guide(subject.pipe, negative_prompt_embeds=embeds),
        pytest.raises(nag.InvalidParameter, match=r"\(prompts, tokens, layers, channels\)"),
    ):
        subject.generate()
