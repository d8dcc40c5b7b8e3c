"""Kolors, alone and under perturbed attention guidance, with a small ChatGLM."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from transformers import BatchEncoding

from tests.tiny.common import WIDTH, Case, vae
from tests.tiny.unet import small_unet
from training import text
from training.shapes.world import WORDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its ChatGLM is scripted
    from diffusers import KolorsPAGPipeline, KolorsPipeline
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel


class LeftPadded:
    """ChatGLM's way to lay out its ids, over T5's pieces: padding first, and positions beside it.

    Shorter than the pipelines' 256, among which a small model would not find the prompt.
    """

    def __init__(self) -> None:
        self.pieces = text.t5_tokenizer(WORDS)

    def __len__(self) -> int:
        return len(self.pieces)

    def __call__(self, prompts: str | Sequence[str], max_length: int, **_: Any) -> BatchEncoding:
        max_length = min(max_length, 15)
        ids = self.pieces([prompts] if isinstance(prompts, str) else list(prompts)).input_ids
        pads = [max_length - len(each) for each in ids]
        rows = {
            "input_ids": [[0] * pad + each for pad, each in zip(pads, ids, strict=True)],
            "attention_mask": [[0] * pad + [1] * len(each) for pad, each in zip(pads, ids, strict=True)],
            "position_ids": [[0] * pad + list(range(len(each))) for pad, each in zip(pads, ids, strict=True)],
        }
        return BatchEncoding(rows, tensor_type="pt")


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer = LeftPadded()
    encoder = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            ffn_hidden_size=2 * WIDTH,
            kv_channels=WIDTH // 2,
            num_attention_heads=2,
            multi_query_attention=True,
            original_rope=True,
        ),
        empty_init=False,
    )
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            parameter.data.fill_(1.0)
    return {
        "vae": vae(),
        "text_encoder": encoder.eval(),
        "tokenizer": tokenizer,
        "unet": small_unet(
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            use_linear_projection=True,
            encoder_hid_dim_type="text_proj",
            encoder_hid_dim=WIDTH,
        ),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
    }


def kolors(seed: int = 0) -> KolorsPipeline:
    return KolorsPipeline(**_parts(seed))


def kolors_pag(seed: int = 0) -> KolorsPAGPipeline:
    return KolorsPAGPipeline(**_parts(seed), pag_applied_layers="mid")


_OPTIONS = {"guidance_scale": 0.0, "height": 16, "width": 16}

CASES = (
    Case("kolors", kolors, options=_OPTIONS, cfg={"guidance_scale": 4.0}),
    Case(
        "kolors-pag",
        kolors_pag,
        options=_OPTIONS | {"pag_scale": 0.0},
        cfg={"guidance_scale": 4.0, "pag_scale": 2.0},
        conditional_rows=(False, False, True, True, False, False),
    ),
)
