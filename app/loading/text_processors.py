"""Replaces transformers' processors that need torchvision, which the service does not install.

Most of them get text alone here, and do for it what their tokenizers do. Qwen2-VL's reads images too, but no videos.
"""

from __future__ import annotations

import re
from typing import Any

import transformers
from transformers.utils import is_torchvision_available

__all__ = ["ImageTextProcessor", "TextProcessor", "replace_processors"]

IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105


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


class ImageTextProcessor(TextProcessor):
    """Qwen2-VL's processor: an image stands in the text as a token for each square of its patches."""

    def __init__(self, tokenizer: Any, image_processor: Any) -> None:
        super().__init__(tokenizer)
        self.image_processor = image_processor

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> ImageTextProcessor:
        """Loads what the processor's folder holds."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        return cls(tokenizer, transformers.Qwen2VLImageProcessorPil.from_pretrained(path, **options))

    def __call__(self, text: Any, images: Any = None, **options: Any) -> Any:
        """Tokenizes texts; `images` are those of all of them, in their order."""
        if images is None:
            return self.tokenizer(text, **options)
        pixels = self.image_processor(images=images, return_tensors=options.get("return_tensors"))
        counts = iter((pixels["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2).tolist())
        texts = [re.sub(re.escape(IMAGE_TOKEN), lambda _: IMAGE_TOKEN * next(counts), one) for one in text]
        return transformers.BatchFeature({**self.tokenizer(texts, **options), **pixels})


#: By the name of a processor in transformers.
STAND_INS = {
    "PixtralProcessor": TextProcessor, "Qwen3VLProcessor": TextProcessor, "Qwen2VLProcessor": ImageTextProcessor,
}  # fmt: skip


def replace_processors() -> None:
    """Makes diffusers load a stand-in for each processor that cannot be loaded here."""
    if not is_torchvision_available():
        for name, kind in STAND_INS.items():
            setattr(transformers, name, kind)
