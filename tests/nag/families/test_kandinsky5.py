from __future__ import annotations

import pytest
import torch

import nag
from tests.nag.support import Subject, difference


@pytest.fixture
def kandinsky() -> Subject:
    return Subject.named("kandinsky5")


def test_negatives_of_unequal_length_do_not_read_each_others_padding(kandinsky: Subject) -> None:
    # The prompt's own length is the same in every row; the negatives go by the plain tokenizer.
    pipe = kandinsky.pipe
    pipe.tokenizer = pipe.tokenizer.tokenizer
    negatives = ["a", "a small blue square on a white background", ""]
    with nag.guide(pipe, negatives, scale=9.0):
        together = kandinsky.generate(["a red circle"] * 3, seeds=[5, 6, 7])
    for row, negative in enumerate(negatives):
        with nag.guide(pipe, negative, scale=9.0):
            alone = kandinsky.generate("a red circle", seeds=[5 + row])
        assert difference(together[row], alone[0]) < 1e-5


@pytest.mark.parametrize("negative", ["a", "a small blue square on a white background"])
def test_the_mask_of_given_embeddings_holds_in_every_block(kandinsky: Subject, negative: str) -> None:
    """Tokens that the mask leaves out change nothing; without it they do."""
    with torch.no_grad():
        embeds = kandinsky.pipe.encode_prompt(negative)[0]
    longer = torch.cat([embeds, torch.randn(1, 3, embeds.shape[2])], dim=1)
    mask = torch.arange(longer.shape[1])[None] < embeds.shape[1]
    with nag.guide(kandinsky.pipe, negative_prompt_embeds=embeds, scale=9.0):
        plain = kandinsky.generate()
    with nag.guide(kandinsky.pipe, negative_prompt_embeds=longer, negative_prompt_attention_mask=mask, scale=9.0):
        assert difference(kandinsky.generate(), plain) < 1e-5
    unmasked = torch.ones_like(mask)
    with nag.guide(kandinsky.pipe, negative_prompt_embeds=longer, negative_prompt_attention_mask=unmasked, scale=9.0):
        assert difference(kandinsky.generate(), plain) > 1e-3
