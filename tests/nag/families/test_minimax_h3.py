"""MiniMax-H3: its timesteps, and the tags of a negative prompt's tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nag import NegativeEmbeds
from nag.families import family_of_denoiser
from tests.tiny.common import WIDTH
from tests.tiny.minimax_h3 import VIDEO, arguments, denoiser


@pytest.fixture(scope="module")
def family() -> Any:
    return family_of_denoiser(denoiser())


def test_the_timestep_is_that_of_the_video_beside_sound_and_a_keyframe(family: Any) -> None:
    assert family.timestep(None, arguments(torch.randn(1, 5, WIDTH), 5)) == pytest.approx(900)


@pytest.mark.parametrize("given", [None, [VIDEO, VIDEO, 1]])
def test_tokens_of_the_negative_are_tagged_as_text_unless_told(family: Any, given: Any) -> None:
    more = {} if given is None else {"token_tags": torch.tensor([given])}
    call = arguments(torch.randn(1, 5, WIDTH), 5)
    packed = family.pack(call, NegativeEmbeds(torch.randn(1, 3, WIDTH), extra=more))
    assert packed["token_tags"][5:8].tolist() == (given or [1, 1, 1])
    assert packed["token_tags"][8:].tolist() == call["token_tags"][5:].tolist()
