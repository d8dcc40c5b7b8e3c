"""HunyuanDiT, alone and under perturbed attention guidance."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, HunyuanDiT2DModel, HunyuanDiTPAGPipeline, HunyuanDiTPipeline
from torch import nn
from transformers import BertConfig, BertModel

from tests.tiny.common import WIDTH, Case, strengthen, vae
from tests.tiny.words import word_tokenizer
from training import text
from training.shapes.world import WORDS


def _parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    tokenizer, t5_tokenizer = word_tokenizer(), text.t5_tokenizer(WORDS)
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=32,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=WIDTH,
    )
    strengthen(transformer, 3.0)
    # The pipelines ask for 333 tokens, nearly all of them padding.
    transformer.text_embedding_padding.data.mul_(0.05)
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * WIDTH,
        )
    )
    t5 = text.t5_encoder(t5_tokenizer, WIDTH)
    for words in (bert.embeddings.word_embeddings, t5.shared):
        nn.init.normal_(words.weight, std=1.0)
    nn.init.constant_(t5.encoder.final_layer_norm.weight, 5.0)
    return {
        "vae": vae(8),
        "text_encoder": bert.eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": t5.eval(),
        "tokenizer_2": t5_tokenizer,
        "transformer": transformer.eval(),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def hunyuandit(seed: int = 0) -> HunyuanDiTPipeline:
    return HunyuanDiTPipeline(**_parts(seed))


def hunyuandit_pag(seed: int = 0) -> HunyuanDiTPAGPipeline:
    return HunyuanDiTPAGPipeline(**_parts(seed), pag_applied_layers="blocks.1")


_OPTIONS = {"guidance_scale": 1.0, "height": 64, "width": 64, "use_resolution_binning": False}
_TEXT = ("encoder_hidden_states", "text_embedding_mask", "encoder_hidden_states_t5", "text_embedding_mask_t5")

CASES = (
    Case(
        "hunyuandit",
        hunyuandit,
        options=_OPTIONS,
        cfg={"guidance_scale": 4.0},
        text=_TEXT,
        text_tokens=333,
        modulation="time_extra_emb",
    ),
    Case(
        "hunyuandit-pag",
        hunyuandit_pag,
        options=_OPTIONS | {"pag_scale": 0.0},
        cfg={"guidance_scale": 4.0, "pag_scale": 2.0},
        conditional_rows=(False, False, True, True, False, False),
        text=_TEXT,
        text_tokens=333,
        modulation="time_extra_emb",
    ),
)
