"""Wan-Animate 2: a step of the generation, beside the keys kept of the driving video."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from diffusers import WanAnimate2Transformer3DModel
from diffusers.models.transformers import transformer_wan_animate_2 as wan_animate_2
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from tests.tiny.calls import DenoiserCall
from tests.tiny.common import WIDTH, strengthen

LATENTS = 4
#: Latent frames of the driving video, and the height and width of the video in pixels.
FRAMES, SIZE = 1, (32, 32)
GRID = (SIZE[0] // 16, SIZE[1] // 16)
TEXT = 512


def denoiser(seed: int = 0, **more: Any) -> WanAnimate2Transformer3DModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "in_dim": 2 * LATENTS,
        "dim": 24,
        "ffn_dim": 32,
        "freq_dim": 16,
        "text_dim": WIDTH,
        "out_dim": LATENTS,
        "num_heads": 2,
        "num_layers": 2,
    }
    model = WanAnimate2Transformer3DModel(**(sizes | more))
    strengthen(model, 4.0)
    for block in model.blocks:
        block.cross_attn.norm_q.weight.data.mul_(8.0)  # few of the tokens are words, the rest padding
    make_mask(model, FRAMES)
    return model.eval()


def make_mask(model: Any, frames: int) -> None:
    """Makes the mask of so many latent frames, which the model would compile in a way that torch gives up."""
    uncompiled = mock.patch.object(
        wan_animate_2, "create_block_mask", lambda *args, _compile, **sizes: create_block_mask(*args, **sizes)
    )
    with uncompiled:
        model.block_masks[frames, GRID[0] * GRID[1]] = model.create_mask(frames, GRID[0] * GRID[1], "cpu")


def arguments(text: Tensor, places: int, mode: str = "cached") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    frames = FRAMES + (mode == "cached")
    rows, heads, tokens = len(text), 2, GRID[0] * GRID[1]
    cache = wan_animate_2.WanAnimate2KVCache(2)
    for layer in cache.layer_caches:
        layer.store(*torch.randn(2, rows, FRAMES * tokens, heads, 12, generator=generator))

    def latents() -> list[Tensor]:
        return list(torch.randn(rows, LATENTS, frames, 2 * GRID[0], 2 * GRID[1], generator=generator))

    return {
        "hidden_states": latents(),
        "timestep": torch.tensor([800.0]).expand(rows),
        "encoder_hidden_states": list(text),
        "condition_latents": latents(),
        "kv_cache": cache,
        "kv_cache_mode": mode,
        "seq_len": frames * tokens,
        "encoder_hidden_states_image": torch.randn(rows, 5, 1280, generator=generator),
        "offset_grid_sizes": torch.tensor([(FRAMES, *GRID)] * rows),
        "reference_grid_sizes": torch.tensor([(FRAMES, *GRID)] * rows),
        "origin_len": 4 * (FRAMES - 1) + 1,
        "origin_area": list(SIZE),
    }


CALLS = (DenoiserCall("wan-animate-2", denoiser, arguments, "cross", text_tokens=TEXT),)
