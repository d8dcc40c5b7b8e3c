"""Flux.3, of a prompt alone, beside a reference image, and step-distilled."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import Flux3Transformer2DModel
from torch import Tensor

from tests.tiny.calls import DenoiserCall
from tests.tiny.common import WIDTH, strengthen

CHANNELS = 4


def denoiser(seed: int = 0, **more: Any) -> Flux3Transformer2DModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "in_channels": CHANNELS,
        "cond_in_channels": CHANNELS,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "timestep_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
    }
    model = Flux3Transformer2DModel(**(sizes | more))
    strengthen(model)
    return model.eval()


def arguments(text: Tensor, places: int, **more: Any) -> dict[str, Any]:
    rows, tokens, _ = text.shape
    return {
        "hidden_states": torch.randn(rows, 6, CHANNELS, generator=torch.Generator().manual_seed(1)),
        "encoder_hidden_states": text,
        "timestep": torch.tensor([0.9, 0.4])[:rows],
        "img_ids": torch.cartesian_prod(*(torch.arange(n).float() / 2 for n in (1, 2, 3, 1))),
        "txt_ids": torch.cartesian_prod(*(torch.arange(n).float() for n in (1, 1, 1, tokens))),
        **more,
    }


def beside_a_reference(text: Tensor, places: int) -> dict[str, Any]:
    reference = torch.randn(len(text), 4, CHANNELS, generator=torch.Generator().manual_seed(2))
    ids = torch.cartesian_prod(*(torch.arange(n).float() / 2 for n in (1, 2, 2, 1)))
    ids[:, 3] = -1
    return arguments(text, places, image_cond_hidden_states=reference, image_cond_ids=ids)


def distilled(text: Tensor, places: int) -> dict[str, Any]:
    return arguments(text, places, target_timestep=torch.tensor([0.5, 0.0])[: len(text)])


CALLS = (
    DenoiserCall("flux3", denoiser, arguments, "text_first"),
    DenoiserCall("flux3-reference", denoiser, beside_a_reference, "text_first"),
    DenoiserCall("flux3-distilled", functools.partial(denoiser, flow_map=True), distilled, "text_first"),
)
