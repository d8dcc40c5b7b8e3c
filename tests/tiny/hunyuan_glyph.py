"""HunyuanImage 2.1 and HunyuanVideo 1.5: a second text encoder reads what the prompt has in quotes."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from diffusers.guiders.adaptive_projected_guidance_mix import AdaptiveProjectedMixGuidance
from transformers import ByT5Tokenizer

from tests.tiny.common import SEPARATE, WIDTH, Case, strengthen
from tests.tiny.words import byt5, qwen_vl, word_tokenizer

TOKENS, GLYPH_TOKENS, IMAGE_TOKENS = 12, 20, 5
CHAT = "{% for message in messages %}{% if message.role == 'user' %}{{ message.content }} <end>{% endif %}{% endfor %}"


def hunyuan_image(seed: int = 0) -> HunyuanImagePipeline:
    torch.manual_seed(seed)
    tokenizer, bytes_tokenizer = word_tokenizer(), ByT5Tokenizer()
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=16,
        rope_axes_dim=(8, 8),
    )
    strengthen(transformer)
    pipe = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32),
            layers_per_block=1,
            spatial_compression_ratio=2,
            sample_size=16,
            scaling_factor=1.0,
        ).eval(),
        text_encoder=qwen_vl(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=byt5(bytes_tokenizer),
        tokenizer_2=bytes_tokenizer,
        transformer=transformer.eval(),
        guider=AdaptiveProjectedMixGuidance(enabled=False),
    )
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = TOKENS, GLYPH_TOKENS
    pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "{}", 0
    return pipe


def hunyuan_video15(seed: int = 0) -> HunyuanVideo15Pipeline:
    torch.manual_seed(seed)
    tokenizer, bytes_tokenizer = word_tokenizer(), ByT5Tokenizer()
    tokenizer.chat_template = CHAT
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=16,
        image_embed_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    strengthen(transformer)
    pipe = HunyuanVideo15Pipeline(
        text_encoder=qwen_vl(tokenizer).model.language_model,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(32,) * 4, layers_per_block=1, spatial_compression_ratio=8
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=byt5(bytes_tokenizer),
        tokenizer_2=bytes_tokenizer,
        guider=ClassifierFreeGuidance(enabled=False),
    )
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = TOKENS, GLYPH_TOKENS
    pipe.prompt_template_encode_start_idx, pipe.vision_num_semantic_tokens = 0, IMAGE_TOKENS
    return pipe


_TEXT = (
    "encoder_hidden_states",
    "encoder_attention_mask",
    "encoder_hidden_states_2",
    "encoder_attention_mask_2",
)

CASES = (
    Case(
        "hunyuan-image",
        hunyuan_image,
        options={"height": 14, "width": 14},
        cfg={"guider": ClassifierFreeGuidance(3.0), "negative_prompt": ["a triangle"] * 2},
        conditional_rows=SEPARATE,
        text=_TEXT,
        text_tokens=TOKENS + GLYPH_TOKENS,
        attention="text_last",
    ),
    Case(
        "hunyuan-15",
        hunyuan_video15,
        options={"height": 32, "width": 32, "num_frames": 9},
        cfg={"guider": ClassifierFreeGuidance(3.0), "negative_prompt": ["a triangle"] * 2},
        conditional_rows=SEPARATE,
        text=_TEXT,
        text_tokens=TOKENS + GLYPH_TOKENS + IMAGE_TOKENS,
        attention="text_last",
        output="frames",
        takes="without copies",
    ),
)
