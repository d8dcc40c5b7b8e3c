"""Stable Diffusion 3: the large model's blocks, and the medium's with a second attention of the image alone."""

from __future__ import annotations

import functools

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from tests.tiny.common import WIDTH, Case, clip_config, far_apart, strengthen, vae
from training import text
from training.shapes.world import WORDS


def sd3(seed: int = 0, dual: tuple[int, ...] = (), channels: int = 4) -> StableDiffusion3Pipeline:
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
        qk_norm="rms_norm",
    )
    strengthen(transformer)
    t5 = far_apart(text.t5_encoder(t5_tokenizer, 2 * WIDTH))
    autoencoder = vae(channels=channels)
    autoencoder.register_to_config(shift_factor=0.0)
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=CLIPTextModelWithProjection(clip_config(clip_tokenizer)).eval(),
        tokenizer=clip_tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(clip_tokenizer)).eval(),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
        transformer=transformer.eval(),
    )


_OPTIONS = {"guidance_scale": 0.0, "height": 16, "width": 16, "max_sequence_length": 15}
_CFG = {"guidance_scale": 4.0, "negative_prompt": "a triangle"}

CASES = (
    Case("sd3", sd3, options=_OPTIONS, cfg=_CFG, attention="text_last"),
    Case("sd3-dual", functools.partial(sd3, dual=(0, 1)), options=_OPTIONS, cfg=_CFG, attention="text_last"),
)
