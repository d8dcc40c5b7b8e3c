"""Qwen-Image 2.1, of a prompt alone and with a picture given."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from PIL import Image
from torch import nn
from transformers import BatchEncoding, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, strengthen
from tests.tiny.qwen_image import VISION

PATCH = 16


def qwen3_vl_config(tokenizer: Any, patch_size: int = PATCH) -> Qwen3VLConfig:
    start, end, image = tokenizer.convert_tokens_to_ids(list(VISION))
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "patch_size": patch_size,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )


class PictureProcessor:
    """Does what transformers' own does with torchvision: a token for each 32 × 32 pixels, and their patches."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> Any:
        return [self.tokenizer.apply_chat_template(messages, **kwargs)]

    def __call__(self, text: list[str], images: Any = None, **kwargs: Any) -> BatchEncoding:
        if images is None:
            return self.tokenizer(text, **kwargs)
        grids = [(1, image.height // PATCH, image.width // PATCH) for image in images]
        each, pad = iter(grids), VISION[2]
        text = [re.sub(re.escape(pad), lambda _: pad * (math.prod(next(each)) // 4), line) for line in text]
        encoded = self.tokenizer(text, **kwargs)
        colours = [image.convert("RGB").getpixel((0, 0))[0] / 255 for image in images]
        patches = [
            torch.full((math.prod(grid), 3 * 2 * PATCH**2), colour) for colour, grid in zip(colours, grids, strict=True)
        ]
        pads = (encoded["input_ids"] == self.tokenizer.convert_tokens_to_ids(pad)).int()
        return BatchEncoding(
            {
                **encoded,
                "pixel_values": torch.cat(patches),
                "image_grid_thw": torch.tensor(grids),
                "mm_token_type_ids": pads,
            }
        )


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
    encoder = Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer))
    nn.init.normal_(encoder.get_input_embeddings().weight, std=1.0)
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
        text_encoder=encoder.eval(),
        processor=PictureProcessor(tokenizer),
        transformer=transformer.eval(),
    )


_PICTURE = Image.new("RGB", (64, 64), (200, 40, 40))
_TEXT = ("encoder_hidden_states", "encoder_hidden_states_mask")
_CFG = {"true_cfg_scale": 3.0, "negative_prompt": ["a red square", "a triangle"]}

CASES = (
    Case(
        "qwen-image-2.1",
        qwen_image21,
        options={"height": 64, "width": 96},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        text=_TEXT,
        attention="beside",
        beside="a blue square",  # where the image stands depends on the longest prompt
    ),
    Case(
        "qwen-image-2.1-uncached",
        qwen_image21,
        options={"height": 64, "width": 96, "use_kv_cache": False},
        cfg=_CFG,
        conditional_rows=SEPARATE,
        text=_TEXT,
        attention="beside",
        beside="a blue square",  # where the image stands depends on the longest prompt
    ),
    Case(
        "qwen-image-2.1-picture",
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
