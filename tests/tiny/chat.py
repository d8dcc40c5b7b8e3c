"""Tokenizers of chat models whose vocabulary is the words of the world, and the causal encoders that go with them."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.tiny.common import WIDTH, far_apart
from training.shapes.world import WORDS

TURN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>")


def chat_tokenizer(
    padding_side: str = "right", extra: tuple[str, ...] = (), start: str = ""
) -> PreTrainedTokenizerFast:
    """A token a word; words that the world does not have are spelt, so that no two prompts are the same.

    start: a token ahead of every text.
    """
    special = (*SPECIAL, *extra)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*special, *WORDS, *letters, *(f"##{letter}" for letter in letters), "system", "user", "assistant"]
    tokenizer = Tokenizer(
        models.WordPiece(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="<|unk|>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<|unk|>",
        extra_special_tokens=["<|im_start|>", *extra],
        padding_side=padding_side,
        chat_template=TURN,
    )


def language_model(kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, **more: Any) -> Any:
    """A causal encoder whose words are far apart."""
    return far_apart(kind(config(vocab_size=len(tokenizer), **LANGUAGE, **more)))
