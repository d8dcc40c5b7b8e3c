"""An image adapter's keys come beside the prompts': it acts as before, and only the prompt is guided."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from torch import nn

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


class AsItIs(nn.Module):
    def forward(self, embeds: Any) -> Any:
        return embeds


def adapt(transformer: Any) -> None:
    torch.manual_seed(0)
    for block in transformer.transformer_blocks:
        block.attn.processor = FluxIPAdapterAttnProcessor(32, 32, num_tokens=(4,), scale=[1.0])
    transformer.encoder_hid_proj = AsItIs()


def test_an_image_adapter_acts_under_guidance(flux: Subject) -> None:
    adapt(flux.pipe.transformer)
    image = torch.randn(1, 4, 32)

    def generate(strength: float) -> Any:
        return flux.generate(joint_attention_kwargs={"ip_adapter_image_embeds": [strength * image]})

    plain = generate(1)
    with nag.guide(flux.pipe, NEGATIVE, scale=9.0):
        guided, without = generate(1), generate(0)
    with nag.guide(flux.pipe, NEGATIVE, end=0.0):
        assert torch.equal(generate(1), plain)
    assert difference(guided, without) > 0.01
    assert difference(guided, plain) > 0.01
