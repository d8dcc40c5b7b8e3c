"""Tokenizers in the place of transformers' processors that need torchvision, which the service does not install.

Text encoders get no images here, and for text alone these processors do what their tokenizers do.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers.utils import is_torchvision_available

__all__ = ["TextProcessor", "replace_processors"]

NEED_TORCHVISION = ("PixtralProcessor", "Qwen3VLProcessor")


class TextProcessor(transformers.ProcessorMixin):
    """The text half of a processor."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> TextProcessor:
        """Loads the tokenizer that the processor's folder holds."""
        return cls(transformers.AutoTokenizer.from_pretrained(path, **options))

    def __call__(self, text: Any, **options: Any) -> Any:
        """Tokenizes the text."""
        return self.tokenizer(text, **options)

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Tokenizes conversations; a single one becomes a batch of one, as a processor makes it."""
        batch = conversation if isinstance(conversation[0], list) else [conversation]
        return self.tokenizer.apply_chat_template(batch, **options)


def replace_processors() -> None:
    """Makes diffusers load a TextProcessor for each processor that cannot be loaded here."""
    if not is_torchvision_available():
        for name in NEED_TORCHVISION:
            setattr(transformers, name, TextProcessor)
