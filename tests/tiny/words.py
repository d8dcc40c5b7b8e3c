"""A tokenizer of a token a word, and small encoders, for models whose own tokenizers are of no matter here."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5EncoderModel,
)

from tests.tiny.common import WIDTH, far_apart
from training import text
from training.shapes.world import WORDS

SPECIAL = ("<pad>", "<end>", "<unk>", "<start>")


def word_tokenizer(max_length: int = 512, more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Ends every text by `<end>`. more: tokens beside the world's words."""
    vocab = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL, *more, *WORDS)))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        bos_token="<start>",
        additional_special_tokens=list(more),
        model_max_length=max_length,
        padding_side="right",
    )


def llama_config(tokenizer: PreTrainedTokenizerFast, width: int, layers: int = 4) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
    )


def qwen_vl(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3], "rope_type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
    )
    return far_apart(Qwen2_5_VLForConditionalGeneration(config))


def byt5(tokenizer: ByT5Tokenizer) -> T5EncoderModel:
    return far_apart(text.t5_encoder(tokenizer, 16))
