"""Kandinsky 6, video with sound and without."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
)
from transformers import BatchEncoding, CLIPTextModel

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, Case, clip_config
from tests.tiny.kandinsky5 import transformer_of
from tests.tiny.qwen_image import VISION, qwen_vl_encoder
from training import text
from training.shapes.world import WORDS

_PIPELINE = vars(sys.modules[Kandinsky6TI2VAPipeline.__module__])
_AHEAD, _BEHIND = _PIPELINE["_PROMPT_TEMPLATE"].split("{}")
_CROPPED = _PIPELINE["_QWEN_CROP_START"]


class TemplateTokenizer:
    """A token a word of the prompt, behind as many tokens of the template as the pipeline crops."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: list[str], max_length: int, images: Any, videos: Any, **kwargs: Any) -> BatchEncoding:
        prompts = [line.removeprefix(_AHEAD).removesuffix(_BEHIND) for line in text]
        encoded = self.tokenizer(prompts, max_length=max_length - _CROPPED, **kwargs)
        ahead = torch.ones(len(text), _CROPPED, dtype=torch.long)
        return BatchEncoding({name: torch.cat([ahead, each], dim=1) for name, each in encoded.items()})


def kandinsky6(seed: int = 0) -> Kandinsky6TI2VAPipeline:
    torch.manual_seed(seed)
    tokenizer, clip_tokenizer = chat_tokenizer(extra=VISION, start="<|im_start|>"), text.clip_tokenizer(WORDS)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    pipe = Kandinsky6TI2VAPipeline(
        transformer=transformer_of(Kandinsky6Transformer3DModel, in_audio_dim=4, out_audio_dim=4),
        vae=AutoencoderKLHunyuanVideo(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4
        ),
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=TemplateTokenizer(tokenizer),
        text_encoder_2=CLIPTextModel(clip_config(clip_tokenizer)).eval(),
        tokenizer_2=clip_tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    # The latents of the sound need no decoders.
    pipe.audio_vae, pipe.vocoder = SimpleNamespace(), SimpleNamespace()
    pipe.audio_sample_rate, pipe.audio_latent_hop_length = 16, 1
    return pipe


_OPTIONS = {"guidance_scale": 1.0, "height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 15}

CASES = tuple(
    Case(
        name,
        kandinsky6,
        options=_OPTIONS | {"sample_audio": sound},
        cfg={"guidance_scale": 4.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        output="frames",
    )
    for name, sound in (("kandinsky6", True), ("kandinsky6-silent", False))
)
