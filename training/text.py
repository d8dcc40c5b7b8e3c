"""Tokenizers and small CLIP and T5 text encoders whose vocabulary is the words of a world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BatchEncoding,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

#: Deviation of text states at first, where a model hears its text by cross attention alone: the output of that starts
#: far below the noise around it. At 1 a caption was not heard after 400 steps, at 5 after 200 (shapes-sd).
HEARD = 5.0
CLIP_MAX_LENGTH = 77
T5_MAX_LENGTH = 512
T5_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2


def clip_tokenizer(words: Sequence[str]) -> CLIPTokenizer:
    """Byte-level BPE in CLIP's layout: each word of the world is one token, any other text falls into bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(words)] * 2, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    # The trainer numbers single characters in an order of its own; a model's weights need the same ids every time.
    tokens = [*special, *alphabet, *(f"{each}</w>" for each in alphabet), *("".join(pair) for pair in merges)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_MAX_LENGTH)


def t5_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Unigram in T5's layout with one piece per word, read without regard to case and to punctuation around a word.

    Letters follow, so that unknown words keep their spelling; any other character is `<unk>`. The class is the general
    one because transformers' T5Tokenizer drops the normalizer of the file that it loads.
    """
    pieces = [*((token, 0.0) for token in T5_SPECIAL.values()), *((f"▁{word}", -2.0) for word in words), ("▁", -6.0)]
    known = {piece for piece, _ in pieces}
    pieces += [(letter, -10.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.-'" if letter not in known]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    unigram.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[\p{P}&&[^-,.']]+"), " ")]
    )
    unigram.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex("[,.-]+"), "merged_with_previous"),
            pre_tokenizers.Metaspace(prepend_scheme="always"),
        ]
    )
    unigram.decoder = decoders.Metaspace(prepend_scheme="always")
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram,
        **T5_SPECIAL,
        model_max_length=T5_MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def tokens(tokenizer: Any, captions: list[str], length: int, device: torch.device) -> BatchEncoding:
    """Ids and mask (B, length), padded and cut as the pipelines do it."""
    found: BatchEncoding = tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return found.to(device)


def clip_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * 4,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=width,
            max_position_embeddings=CLIP_MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_sizes(tokenizer, width), feed_forward_proj="gated-gelu"))


def umt5_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_sizes(tokenizer, width)))


def _sizes(tokenizer: PreTrainedTokenizerFast, width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": width,
        "d_kv": width // 2,
        "d_ff": width * 4,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
