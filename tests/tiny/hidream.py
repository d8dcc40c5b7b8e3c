"""HiDream, of a square picture and of one that the model pads to a fixed number of tokens."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel
from transformers import CLIPTextModelWithProjection, LlamaForCausalLM

from tests.tiny.common import WIDTH, Case, clip_config, far_apart, strengthen, vae
from tests.tiny.words import llama_config, word_tokenizer
from training import text
from training.shapes.world import WORDS

TOKENS = 15


def hidream(seed: int = 0) -> HiDreamImagePipeline:
    torch.manual_seed(seed)
    clip_tokenizer, t5_tokenizer, tokenizer = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS), word_tokenizer()
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(8, 4, 4),
        max_resolution=(8, 8),
        llama_layers=[0, 1, 2, 3],
    )
    strengthen(transformer)
    t5 = far_apart(text.t5_encoder(t5_tokenizer, WIDTH))
    llama = llama_config(tokenizer, WIDTH)
    llama._attn_implementation = "eager"  # the pipeline asks it for its attention maps
    autoencoder = vae()
    autoencoder.register_to_config(shift_factor=0.0)
    pipe = HiDreamImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder,
        text_encoder=CLIPTextModelWithProjection(clip_config(clip_tokenizer)).eval(),
        tokenizer=clip_tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(clip_tokenizer)).eval(),
        tokenizer_2=clip_tokenizer,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
        text_encoder_4=LlamaForCausalLM(llama).eval(),
        tokenizer_4=tokenizer,
        transformer=transformer.eval(),
    )
    pipe.default_sample_size = 8  # every picture is made as large as this square
    return pipe


def _case(name: str, height: int, width: int) -> Case:
    return Case(
        name,
        hidream,
        options={"guidance_scale": 1.0, "height": height, "width": width, "max_sequence_length": TOKENS},
        cfg={"guidance_scale": 4.0},
        text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
        text_tokens=3 * TOKENS,
        attention="text_last",
    )


CASES = (_case("hidream", 16, 16), _case("hidream-wide", 8, 16))
