"""Gemma's tokenizer and a small Gemma 2 as SANA and Lumina read their prompts by."""

from __future__ import annotations

import json
import string

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from tests.tiny.common import WIDTH
from training.shapes.world import WORDS

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def gemma_tokenizer() -> GemmaTokenizer:
    """BPE over words that carry the space ahead of them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bpe.train_from_iterator([" ".join(WORDS)] * 2, trainers.BpeTrainer(min_frequency=1, show_progress=False))
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    characters = (*string.printable, "▁")
    tokens = dict.fromkeys((*SPECIAL, *characters, *("".join(pair) for pair in merges)))
    return GemmaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, add_bos_token=True)


def gemma2(tokenizer: GemmaTokenizer, layers: int = 2) -> Gemma2Model:
    model = Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=WIDTH // 2,
            query_pre_attn_scalar=WIDTH // 2,
        )
    )
    with torch.no_grad():
        nn.init.normal_(model.embed_tokens.weight, std=1.0)
    return model.eval()
