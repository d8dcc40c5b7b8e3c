import pytest
import torch

import nag
from tests import tiny
from tests.nag.support import Subject

INSTRUCTION = ["a small shape", "on a background"]
NEGATIVE = "a blue square"


@pytest.fixture
def sana():
    return Subject(next(case for case in tiny.CASES if case.name == "sana"))


def test_the_instruction_stands_before_the_prompt_and_not_before_the_negative(sana):
    options = {"complex_human_instruction": INSTRUCTION}
    with nag.guide(sana.pipe, NEGATIVE):
        by_text = sana.generate(**options)
    with torch.no_grad():
        _, _, embeds, mask = sana.pipe.encode_prompt(
            "a red circle", True, negative_prompt=NEGATIVE, max_sequence_length=15, **options
        )
    with nag.guide(sana.pipe, negative_prompt_embeds=embeds, negative_prompt_attention_mask=mask):
        assert torch.equal(sana.generate(**options), by_text)
    with_instruction = sana.pipe.encode_prompt(NEGATIVE, False, max_sequence_length=15, **options)[0]
    assert not torch.equal(with_instruction, embeds)
