"""Wan-Animate 2: which of its calls are guided, and what its text's length must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from tests.nag.support import difference
from tests.tiny.common import WIDTH
from tests.tiny.wan_animate2 import TEXT, arguments, denoiser


@pytest.fixture(scope="module")
def model() -> Any:
    return denoiser()


def guidance(tokens: int = 7) -> Any:
    return nag.RowGuidance(nag.NegativeEmbeds(torch.randn(1, tokens, WIDTH)), 9.0, 2.0, 0.8)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("call", [{"mode": "extract"}, {"is_uncondtion": True}], ids=["driving video", "unconditional"])
def test_calls_that_are_not_the_prompts_stay_plain(model: Any, call: dict[str, Any]) -> None:
    call = arguments(torch.randn(1, 9, WIDTH), 9, mode=call.pop("mode", "cached")) | call
    plain = model(**call)
    with nag.attach(model) as attached, attached.rows([guidance()]):
        assert torch.equal(model(**call).sample[0], plain.sample[0])
        prompt = arguments(torch.randn(1, 9, WIDTH), 9)
        guided = model(**prompt)
    assert difference(guided.sample[0], model(**prompt).sample[0]) > 0.01


def test_a_negative_longer_than_the_text_that_the_model_reads_is_refused(model: Any) -> None:
    call = arguments(torch.randn(1, 9, WIDTH), 9)
    with (
        nag.attach(model) as attached,
        attached.rows([guidance(TEXT + 1)]),
        pytest.raises(nag.InvalidParameter, match="has 513 tokens; this model reads 512"),
    ):
        model(**call)


def test_a_model_that_reads_another_number_of_tokens_is_refused() -> None:
    with (
        pytest.raises(nag.UnsupportedPipeline, match="reads 64 tokens of text, not 512"),
        nag.attach(denoiser(text_len=64)),
    ):
        pass
