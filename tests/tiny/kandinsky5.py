"""Kandinsky 5, text to image and text to video."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2IPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
)
from torch import nn
from transformers import CLIPTextModel

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, clip_config, strengthen, vae
from tests.tiny.fixed_length_tokenizers import EvenTokens
from tests.tiny.qwen_image import VISION, qwen_vl_encoder
from training import text
from training.shapes.world import WORDS

TEMPLATE = "a small shape {}"
TEMPLATE_TOKENS = 3
TEXT_TOKENS = 14


def transformer_of(kind: Any, **more: Any) -> Any:
    transformer = kind(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=2,
        num_visual_blocks=2,
        axes_dims=(4, 4, 8),
        **more,
    )
    strengthen(transformer, 3.0)
    # Its modulations start at zero, and with them the text's way into the picture.
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:
            nn.init.normal_(parameter, std=0.3)
    return transformer.eval()


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer, clip_tokenizer = chat_tokenizer(extra=VISION), text.clip_tokenizer(WORDS)
    return {
        "transformer": transformer_of(Kandinsky5Transformer3DModel),
        "text_encoder": qwen_vl_encoder(tokenizer),
        # The pipelines mask no padding: how much of it a prompt reads hangs on the others of its batch.
        "tokenizer": EvenTokens(tokenizer, TEMPLATE_TOKENS + TEXT_TOKENS, "on"),
        "text_encoder_2": CLIPTextModel(clip_config(clip_tokenizer)).eval(),
        "tokenizer_2": clip_tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _with_template(pipe: Any) -> Any:
    pipe.prompt_template, pipe.prompt_template_encode_start_idx = TEMPLATE, TEMPLATE_TOKENS
    return pipe


def kandinsky5(seed: int = 0) -> Kandinsky5T2IPipeline:
    pipe = _with_template(Kandinsky5T2IPipeline(**_parts(seed), vae=vae()))
    pipe.resolutions = [(128, 128)]
    return pipe


def kandinsky5_video(seed: int = 0) -> Kandinsky5T2VPipeline:
    parts = _parts(seed)
    autoencoder = AutoencoderKLHunyuanVideo(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4
    )
    return _with_template(Kandinsky5T2VPipeline(**parts, vae=autoencoder))


_CFG = {"guidance_scale": 4.0, "negative_prompt": "a triangle"}

CASES = (
    Case(
        "kandinsky5",
        kandinsky5,
        options={"guidance_scale": 1.0, "height": 128, "width": 128},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        output="image",
        takes="without copies",  # it pairs a prompt's second picture with the next prompt's pooled embedding
    ),
    Case(
        "kandinsky5-video",
        kandinsky5_video,
        options={"guidance_scale": 1.0, "height": 64, "width": 64, "num_frames": 9},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        output="frames",
        takes="without copies",
    ),
)
