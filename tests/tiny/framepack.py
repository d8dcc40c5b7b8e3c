"""HunyuanVideo-Framepack: sections of a video, each ahead of the one before it."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
)
from transformers import LlamaModel, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tests.tiny.common import WIDTH, Case, strengthen
from tests.tiny.hunyuan_video import video_vae
from tests.tiny.video import IMAGE
from tests.tiny.words import llama_config, word_tokenizer
from training import text
from training.shapes.world import WORDS

#: The model cuts off the padding of a single prompt, here "a red circle" and an end. As many as both together are those
#: of its refiner, so that the oracle does not take them for an image.
IMAGE_TOKENS, WORDS_OF_PROMPT = 4, 4
TOKENS = IMAGE_TOKENS + WORDS_OF_PROMPT


def framepack(seed: int = 0) -> HunyuanVideoFramepackPipeline:
    torch.manual_seed(seed)
    tokenizer, clip_tokenizer = word_tokenizer(), text.clip_tokenizer(WORDS)
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
        has_image_proj=True,
        image_proj_dim=WIDTH,
        has_clean_x_embedder=True,
    )
    strengthen(transformer)
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    return HunyuanVideoFramepackPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=video_vae().eval(),
        text_encoder=LlamaModel(llama_config(tokenizer, WIDTH)).eval(),
        tokenizer=tokenizer,
        text_encoder_2=text.clip_encoder(clip_tokenizer, WIDTH).eval(),
        tokenizer_2=clip_tokenizer,
        image_encoder=SiglipVisionModel(vision).eval(),
        feature_extractor=SiglipImageProcessor(size={"height": 8, "width": 8}),
        transformer=transformer.eval(),
    )


CASES = (
    Case(
        "framepack",
        framepack,
        options={
            "image": IMAGE,
            "height": 32,
            "width": 32,
            "num_frames": 10,
            "latent_window_size": 2,
            "max_sequence_length": TOKENS,
            "prompt_template": {"template": "{}", "crop_start": 0},
        },
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle", "num_frames": 5},
        conditional_rows=(True, False),
        text=("encoder_hidden_states", "encoder_attention_mask"),
        text_tokens=TOKENS,
        shared=IMAGE_TOKENS,
        attention="text_last",
        output="frames",
        sections=2,
        takes="one prompt",
    ),
)
