"""LongCat-Image, Ovis-Image and Bria."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    BriaPipeline,
    BriaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)
from transformers import Qwen3Config, Qwen3Model

from tests.tiny.chat import chat_tokenizer, language_model
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen, vae
from tests.tiny.qwen_image import VISION, qwen_vl_encoder
from training import text
from training.shapes.world import WORDS


def _transformer(kind: Any, **more: Any) -> Any:
    transformer = kind(
        **{
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (4, 4, 8),
        }
        | more
    )
    strengthen(transformer)
    for name, parameter in transformer.named_parameters():  # gates nearly shut, as initialised
        if "norm" in name and "linear.weight" in name:
            parameter.data.mul_(10)
    return transformer.eval()


def longcat(seed: int = 0) -> LongCatImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    pipe = LongCatImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=tokenizer,
        text_processor=tokenizer,
        transformer=_transformer(LongCatImageTransformer2DModel, in_channels=64),
    )
    pipe.tokenizer_max_length = 15
    return pipe


def ovis(seed: int = 0) -> OvisImagePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    pipe = OvisImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(),
        text_encoder=language_model(Qwen3Model, Qwen3Config, tokenizer),
        tokenizer=tokenizer,
        transformer=_transformer(OvisImageTransformer2DModel, out_channels=16),
    )
    pipe.system_prompt, pipe.user_prompt_begin_id = "", 2
    return pipe


def bria(seed: int = 0) -> BriaPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    encoder = far_apart(text.t5_encoder(tokenizer, WIDTH))
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    return BriaPipeline(
        transformer=_transformer(BriaTransformer2DModel),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


_OPTIONS = {"guidance_scale": 1.0, "height": 16, "width": 16}

CASES = (
    Case(
        "longcat-image",
        longcat,
        options=_OPTIONS | {"enable_prompt_rewrite": False},
        cfg={"guidance_scale": 3.0, "negative_prompt": ["a triangle", "a"]},
        conditional_rows=SEPARATE,
        attention="text_first",
    ),
    Case(
        "ovis-image",
        ovis,
        options=_OPTIONS | {"max_sequence_length": 15},
        cfg={"guidance_scale": 3.0},
        conditional_rows=SEPARATE,
        attention="text_first",
    ),
    Case(
        "bria",
        bria,
        options=_OPTIONS | {"max_sequence_length": 15},
        cfg={"guidance_scale": 3.0},
        attention="text_first",
    ),
)
