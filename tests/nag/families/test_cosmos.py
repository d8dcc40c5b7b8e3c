"""Cosmos Transfer 2.5: the denoiser reads text and an image in one argument. Cosmos 3: the words of a negative."""

from __future__ import annotations

from typing import Any

import torch

import nag
from nag.families import family_of
from tests.nag.support import difference
from tests.tiny.common import WIDTH
from tests.tiny.cosmos import cosmos_2_5, transformer
from tests.tiny.cosmos3 import pipeline as cosmos_3
from tests.tiny.wan import LATENTS

CONTEXT = {"img_context_dim_in": 8, "img_context_num_tokens": 3, "img_context_dim_out": WIDTH}


@torch.no_grad()
def test_text_is_guided_and_the_image_beside_it_is_not() -> None:
    torch.manual_seed(0)
    pipe = cosmos_2_5()
    pipe.transformer = transformer(**CONTEXT)
    text, negative = torch.randn(2, 1, 7, WIDTH)
    image = torch.randn(1, 3, 8)

    def denoise() -> Any:
        latents = torch.randn(1, LATENTS, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        return pipe.transformer(latents, torch.tensor([0.5]), (text, image), return_dict=False)[0]

    plain = denoise()
    with nag.guide(pipe, negative_prompt_embeds=text, scale=9.0, alpha=0.8):
        assert difference(denoise(), plain) < 1e-6
    with nag.guide(pipe, negative_prompt_embeds=negative, scale=9.0, alpha=0.8):
        guided = denoise()
        assert difference(guided, plain) > 1e-2
        assert torch.equal(denoise(), guided)
        image += 1
        assert difference(denoise(), guided) > 1e-3


def test_a_negative_of_cosmos_3_is_put_in_the_words_of_a_prompt() -> None:
    pipe = cosmos_3()
    arguments = {"num_frames": 5, "height": 32, "width": 32}
    positive, of_cfg = pipe.tokenize_prompt("a red circle", "a red circle", **arguments)
    encoded = family_of(pipe).encode(pipe.tokenize_prompt, ["a red circle"], {"prompt": "a"} | arguments)
    assert encoded.embeds.flatten().long().tolist() == positive != of_cfg
