"""Bria FIBO."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLWan,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import WIDTH, Case, far_apart, strengthen

#: The token that the pipeline puts in place of an empty prompt.
OF_NOTHING = 128000


def bria_fibo(seed: int = 0) -> BriaFiboPipeline:
    torch.manual_seed(seed)
    transformer = BriaFiboTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        text_encoder_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    strengthen(transformer)
    for name, parameter in transformer.named_parameters():  # gates nearly shut, as initialised
        if "norm" in name and "linear.weight" in name:
            parameter.data.mul_(10)
    encoder = far_apart(
        SmolLM3ForCausalLM(
            SmolLM3Config(
                vocab_size=OF_NOTHING + 1,
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=64,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                tie_word_embeddings=True,
            )
        )
    )
    return BriaFiboPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False]
        ).eval(),
        text_encoder=encoder,
        tokenizer=chat_tokenizer(start="<|im_start|>"),
    )


CASES = (
    Case(
        "fibo",
        bria_fibo,
        options={"guidance_scale": 1.0, "height": 64, "width": 96},
        cfg={"guidance_scale": 3.0, "negative_prompt": ["a triangle", "a"]},
        text=("encoder_hidden_states", "text_encoder_layers"),
        attention="text_first",
        one_length=True,
    ),
)
