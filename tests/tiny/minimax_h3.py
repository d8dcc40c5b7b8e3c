"""MiniMax-H3: text, a keyframe, sound and video in one sequence, with a picture in the prompt or without."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import MiniMaxH3Transformer3DModel
from torch import Tensor

from nag import NegativeEmbeds
from tests.tiny.calls import DenoiserCall
from tests.tiny.common import WIDTH, strengthen

CHANNELS, AUDIO_CHANNELS = 2, 4
VIDEO, TEXT, AUDIO = range(3)
#: Tokens of each kind behind the text: a keyframe, two channels of sound, and video.
KEYFRAME_TOKENS, AUDIO_TOKENS, VIDEO_TOKENS = 4, 6, 8
#: Tokens of a picture ahead of the words of a prompt.
PICTURE_TOKENS = 3


def denoiser(seed: int = 0) -> MiniMaxH3Transformer3DModel:
    torch.manual_seed(seed)
    model = MiniMaxH3Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        hidden_size=WIDTH,
        num_layers=2,
        num_refiner_layers=2,
        ffn_dim=WIDTH,
        in_channels=CHANNELS,
        audio_in_channels=AUDIO_CHANNELS,
        text_dim=WIDTH,
        freq_dim=16,
        time_embed_hidden_dim=16,
        time_embed_dim=16,
        rope_freq_dim=2,
    )
    strengthen(model, 4.0)
    return model.eval()


def arguments(text: Tensor, places: int, pictures: int = 0) -> dict[str, Any]:
    rows, tokens, _ = text.shape
    generator = torch.Generator().manual_seed(1)
    counts = (KEYFRAME_TOKENS, AUDIO_TOKENS, VIDEO_TOKENS)
    positions = torch.zeros(tokens + sum(counts), 3, dtype=torch.float64)
    positions[:tokens, 0] = torch.arange(tokens)
    positions[tokens:, 0] = places + torch.arange(sum(counts)) // 4
    positions[tokens:, 1:] = torch.rand(sum(counts), 2, generator=generator, dtype=torch.float64) * 4
    keyframe, audio, video = torch.arange(tokens, tokens + sum(counts)).split(counts)
    tags = torch.tensor([VIDEO] * pictures + [TEXT] * (tokens - pictures) + [VIDEO] * sum(counts))
    tags[audio] = AUDIO
    timesteps = torch.zeros(tokens + sum(counts), dtype=torch.long)
    timesteps[audio], timesteps[keyframe] = 1, 2
    return {
        "hidden_states": torch.randn(rows, KEYFRAME_TOKENS + VIDEO_TOKENS, 4 * CHANNELS, generator=generator),
        "audio_hidden_states": torch.randn(rows, AUDIO_TOKENS, AUDIO_CHANNELS, generator=generator),
        "encoder_hidden_states": text,
        "timestep": torch.tensor([0.1, 0.4, 0.999]),
        "timestep_indices": timesteps,
        "token_tags": tags,
        "position_ids": positions,
        "video_indices": torch.cat([keyframe, video]),
        "audio_indices": audio,
        "text_indices": torch.arange(tokens),
    }


def with_a_picture(text: Tensor, places: int) -> dict[str, Any]:
    return arguments(text, places, PICTURE_TOKENS)


def negative_with_a_picture(text: Tensor) -> NegativeEmbeds:
    tags = torch.tensor([VIDEO] * PICTURE_TOKENS + [TEXT] * (text.shape[1] - PICTURE_TOKENS))
    return NegativeEmbeds(text, extra={"token_tags": tags[None]})


CALLS = (
    DenoiserCall("minimax-h3", denoiser, arguments, "text_first"),
    DenoiserCall("minimax-h3-picture", denoiser, with_a_picture, "text_first", negative=negative_with_a_picture),
)
