"""Echo: the denoiser of LTX-2, whose video and sound stand behind tokens of memory that are free of noise."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import Tensor

from nag import NegativeEmbeds
from tests.tiny.calls import DenoiserCall
from tests.tiny.ltx2 import AUDIO_LATENTS, LATENTS, transformer

MEMORY, VIDEO, AUDIO = 3, 8, 5


def denoiser(seed: int = 0) -> LTX2VideoTransformer3DModel:
    torch.manual_seed(seed)
    return transformer(cross_attn_mod=True, audio_cross_attn_mod=True)


def of_audio(text: Tensor) -> Tensor:
    return text.flip(1)


def arguments(text: Tensor, places: int) -> dict[str, Any]:
    rows, generator = len(text), torch.Generator().manual_seed(1)
    mask = torch.ones(text.shape[:2])
    timestep = torch.full((rows, MEMORY + VIDEO), 725.0)
    timestep[:, :MEMORY] = 0

    def coords(axes: int, tokens: int) -> Tensor:
        start = torch.rand(rows, axes, tokens, 1, generator=generator)
        return torch.cat([start, start + 0.5], dim=-1)

    return {
        "hidden_states": torch.randn(rows, MEMORY + VIDEO, LATENTS, generator=generator),
        "audio_hidden_states": torch.randn(rows, AUDIO, AUDIO_LATENTS, generator=generator),
        "encoder_hidden_states": text,
        "audio_encoder_hidden_states": of_audio(text),
        "timestep": timestep,
        "audio_timestep": torch.full((rows, AUDIO), 725.0),
        "sigma": torch.full((rows,), 725.0),
        "audio_sigma": torch.full((rows,), 725.0),
        "encoder_attention_mask": mask,
        "audio_encoder_attention_mask": mask,
        "num_frames": 2,
        "height": 2,
        "width": 2,
        "fps": 25.0,
        "audio_num_frames": AUDIO,
        "video_coords": coords(3, MEMORY + VIDEO),
        "audio_coords": coords(1, AUDIO),
        "isolate_modalities": False,
        "use_cross_timestep": True,
    }


def negative(text: Tensor) -> NegativeEmbeds:
    return NegativeEmbeds(text, mask=torch.ones(text.shape[:2]), extra={"audio_encoder_hidden_states": of_audio(text)})


CALLS = (DenoiserCall("echo", denoiser, arguments, "cross", negative=negative),)
