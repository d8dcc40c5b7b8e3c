"""Motif-Video."""

from __future__ import annotations

import torch
from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)
from transformers.models.t5gemma2 import T5Gemma2EncoderConfig
from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2Encoder

from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen
from tests.tiny.gemma import gemma_tokenizer
from tests.tiny.wan import LATENTS, wan_vae


def _t5_gemma(vocabulary: int) -> T5Gemma2Encoder:
    size = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = T5Gemma2EncoderConfig(
        text_config=size | {"vocab_size": vocabulary, "head_dim": 16, "num_key_value_heads": 1, "dropout_rate": 0.0},
        vision_config=size | {"image_size": 8, "patch_size": 4},
        mm_tokens_per_image=4,
        eoi_token_index=4,
    )
    return far_apart(T5Gemma2Encoder(config))


def motif_video(seed: int = 0) -> MotifVideoPipeline:
    torch.manual_seed(seed)
    transformer = MotifVideoTransformer3DModel(
        in_channels=2 * LATENTS + 1,
        out_channels=LATENTS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=2,
        num_decoder_layers=1,
        text_embed_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
        enable_text_cross_attention_dual=True,
        enable_text_cross_attention_single=True,
    )
    strengthen(transformer, 3.0)
    tokenizer = gemma_tokenizer()
    return MotifVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=wan_vae(),
        text_encoder=_t5_gemma(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        guider=ClassifierFreeGuidance(enabled=False),
    )


CASES = (
    Case(
        "motif-video",
        motif_video,
        # Four tokens of video: the last blocks, which have no text, join fewer than the text has.
        options={"height": 32, "width": 16, "num_frames": 5, "max_sequence_length": 15},
        cfg={"guider": ClassifierFreeGuidance(3.0), "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        attention="text_last, cross",
        output="frames",
    ),
)
