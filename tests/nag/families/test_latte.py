from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import nag
from tests.nag.support import Subject, difference


@pytest.fixture
def latte() -> Subject:
    return Subject.named("latte")


def test_negatives_of_unequal_length_do_not_read_each_others_padding(latte: Subject) -> None:
    # The prompt comes as embeddings, since a batch of prompts would read padding that one prompt does not have.
    negatives = ["a", "a small blue square on a white background", ""]
    with torch.no_grad():
        prompt = latte.pipe.encode_prompt("a red circle", False)[0]

    def as_embeddings(rows: Any) -> Any:
        return dict.fromkeys(("prompt_embeds", "negative_prompt_embeds"), prompt.repeat(rows, 1, 1))

    latte.case = replace(
        latte.case, options=dict(latte.case.options) | {"mask_feature": True, "prompt": None, "negative_prompt": None}
    )
    with nag.guide(latte.pipe, negatives, scale=9.0):
        together = latte.generate("abc", seeds=[5, 6, 7], **as_embeddings(3))
    for row, negative in enumerate(negatives):
        with nag.guide(latte.pipe, negative, scale=9.0):
            alone = latte.generate("a", seeds=[5 + row], **as_embeddings(1))
        assert difference(together[row], alone[0]) < 1e-5
