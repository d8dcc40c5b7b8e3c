"""Qwen-Image 2.1, of a prompt alone and with a picture given."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen
from tests.tiny.qwen3_vl import PictureProcessor, qwen3_vl_config
from tests.tiny.qwen_image import VISION


def qwen_image21(seed: int = 0) -> QwenImage21Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    strengthen(transformer, gain=4.0)
    encoder = far_apart(Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer)))
    return QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage21(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        text_encoder=encoder,
        processor=PictureProcessor(tokenizer),
        transformer=transformer.eval(),
    )


_PICTURE = Image.new("RGB", (64, 64), (200, 40, 40))
_TEXT = ("encoder_hidden_states", "encoder_hidden_states_mask")
_CFG = {"true_cfg_scale": 3.0, "negative_prompt": ["a red square", "a triangle"]}

CASES = (
    Case(
        "qwen21",
        qwen_image21,
        options={"height": 64, "width": 96},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        text=_TEXT,
        attention="beside",
        beside="a blue square",  # where the image stands depends on the longest prompt
    ),
    Case(
        "qwen21-uncached",
        qwen_image21,
        options={"height": 64, "width": 96, "use_kv_cache": False},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        text=_TEXT,
        attention="beside",
        beside="a blue square",  # where the image stands depends on the longest prompt
    ),
    Case(
        "qwen21-picture",
        qwen_image21,
        options={
            "height": 64,
            "width": 96,
            "image": [Image.new("RGB", (64, 64), (200, 40, 40))],
            "output_resolution": 64,
        },
        cfg=_CFG,
        conditional_rows=SEPARATE,
        text=_TEXT,
        text_tokens=13 + 16,  # with those of the picture
        attention="beside",
        beside="a blue square",  # where the image stands depends on the longest prompt
    ),
)
