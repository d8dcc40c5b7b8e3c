"""Bria FIBO 2, of a prompt alone and with an image given."""

from __future__ import annotations

import torch
from diffusers import (
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, flux2_vae, strengthen
from tests.tiny.qwen3_vl import PictureProcessor, qwen3_vl_config
from tests.tiny.qwen_image import VISION

#: The most and fewest gist tokens; prompts of the tests that are as long as one another have four, with an image eight.
GIST = 8, 2
#: The text encoder's layers that the resampler and the one injection layer read.
LAYERS = ((0, 1, 2), (2, 0, 1))


def bria_fibo2(seed: int = 0) -> BriaFibo2Pipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = BriaFibo2Transformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=3,
        n_refiner_layers=0,  # it never meets the prompt
        n_heads=2,
        cap_feat_dim=len(LAYERS[0]) * WIDTH,
        injection_layer_ids=(1,),
        perceiver_num_layers=1,
        min_num_gist_tokens=GIST[1],
        max_num_gist_tokens=GIST[0],
        gist_step=2,
        gist_min_text_len=0,
        gist_max_text_len=24,
        axes_dims=(4, 6, 6),
        axes_lens=(16, 16, 16),
    )
    strengthen(transformer)
    for layer in transformer.layers:
        if layer.cross_attention is not None:
            nn.init.constant_(layer.cross_attn_gate, 1.0)  # shut as made
    pipe = BriaFibo2Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=flux2_vae(),
        text_encoder=far_apart(Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer))),
        processor=PictureProcessor(tokenizer),
    )
    pipe.text_encoder_out_layers = LAYERS
    return pipe


_OPTIONS = {"guidance_scale": 1.0, "height": 32, "width": 32}

CASES = tuple(
    Case(
        name,
        bria_fibo2,
        options=_OPTIONS | more,
        cfg={"guidance_scale": 3.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        text_tokens=gist,
        attention="gist_first",
        one_length=True,
        beside="a small blue square on a white background",
    )
    for name, gist, more in (
        ("fibo2", 4, {}),
        ("fibo2-picture", GIST[0], {"image": [Image.new("RGB", (32, 32), (200, 40, 40))]}),
    )
)
