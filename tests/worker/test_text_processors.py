"""What stands in for processors that cannot be loaded without torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from app.loading.text_processors import IMAGE_TOKEN, ImageTextProcessor
from tests.tiny.chat import chat_tokenizer
from tests.tiny.qwen_image import VISION


@pytest.fixture
def processor(tmp_path: Path) -> ImageTextProcessor:
    chat_tokenizer(extra=VISION).save_pretrained(tmp_path)
    Qwen2VLImageProcessorPil(patch_size=8, min_pixels=256).save_pretrained(tmp_path)
    return ImageTextProcessor.from_pretrained(str(tmp_path))


def test_each_image_stands_in_the_text_as_its_patches(processor: ImageTextProcessor) -> None:
    """By transformers' documentation of Qwen2-VL: a token for each 2 x 2 patches."""
    images = [Image.new("RGB", (32, 16), "red"), Image.new("RGB", (64, 32), "blue")]
    text = f"a {IMAGE_TOKEN} circle {IMAGE_TOKEN} square"
    inputs = processor(text=[text], images=images, padding=True, return_tensors="pt")
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert tokens == ["a", *[IMAGE_TOKEN] * 2, "circle", *[IMAGE_TOKEN] * 8, "square"]
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 4], [1, 4, 8]]
    assert inputs["pixel_values"].shape == (2 * 4 + 4 * 8, 3 * 2 * 8 * 8)
    assert inputs["pixel_values"].dtype == torch.float32
    assert inputs["attention_mask"].all()
    other = processor(text=[text], images=images[::-1], padding=True, return_tensors="pt")
    assert not torch.equal(other["pixel_values"], inputs["pixel_values"])


def test_text_alone_is_the_tokenizers(processor: ImageTextProcessor) -> None:
    assert processor(text=["a circle"])["input_ids"] == processor.tokenizer(["a circle"])["input_ids"]
