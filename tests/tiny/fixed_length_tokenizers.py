"""Tokenizers that give every text as many tokens: for pipelines in which a prompt hangs on the longest beside it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchEncoding


class EvenTokens:
    """Fills every text up with words to one length, and pads it after that to the length asked for, if any."""

    def __init__(self, tokenizer: Any, tokens: int, filler: str) -> None:
        self.tokenizer, self.tokens = tokenizer, tokens
        self.filler = tokenizer.convert_tokens_to_ids(filler)

    def __call__(self, text: str | list[str], max_length: int = 0, padding: Any = True, **_: Any) -> BatchEncoding:
        texts = [text] if isinstance(text, str) else text
        ids = torch.tensor([(each + [self.filler] * 20)[: self.tokens] for each in self.tokenizer(texts).input_ids])
        pads = max(max_length - self.tokens, 0) if padding == "max_length" else 0
        rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return BatchEncoding({name: torch.nn.functional.pad(each, (0, pads)) for name, each in rows.items()})
