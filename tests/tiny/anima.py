"""Anima: the denoiser of Cosmos, for one image.

Its padding mask, which torchvision resizes, is left out: it is no part of the text.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CosmosTransformer3DModel
from torch import Tensor

from tests.tiny.calls import DenoiserCall
from tests.tiny.cosmos import transformer
from tests.tiny.wan import LATENTS


def denoiser(seed: int = 0) -> CosmosTransformer3DModel:
    torch.manual_seed(seed)
    return transformer()


def arguments(text: Tensor, places: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(len(text), LATENTS, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
        "timestep": torch.full((len(text),), 0.9),
        "encoder_hidden_states": text,
    }


CALLS = (DenoiserCall("anima", denoiser, arguments, "cross"),)
