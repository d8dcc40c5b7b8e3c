"""HunyuanVideo-Framepack: sections of a video, each ahead of the one before it."""

from __future__ import annotations

import torch
from diffusers import (
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
)
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tests.tiny.common import WIDTH, Case
from tests.tiny.hunyuan_video import parts
from tests.tiny.video import IMAGE

#: The model cuts off the padding of a single prompt, here "a red circle" and an end. As many as both together are those
#: of its refiner, so that the oracle does not take them for an image.
IMAGE_TOKENS, WORDS_OF_PROMPT = 4, 4
TOKENS = IMAGE_TOKENS + WORDS_OF_PROMPT


def framepack(seed: int = 0) -> HunyuanVideoFramepackPipeline:
    torch.manual_seed(seed)
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    return HunyuanVideoFramepackPipeline(
        **parts(
            HunyuanVideoFramepackTransformer3DModel,
            has_image_proj=True,
            image_proj_dim=WIDTH,
            has_clean_x_embedder=True,
        ),
        image_encoder=SiglipVisionModel(vision).eval(),
        feature_extractor=SiglipImageProcessor(size={"height": 8, "width": 8}),
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
