"""A small Qwen3-VL, and a processor for it that needs no torchvision."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from transformers import BatchEncoding, Qwen3VLConfig

from tests.tiny.chat import LANGUAGE
from tests.tiny.common import WIDTH
from tests.tiny.qwen_image import VISION

PATCH = 16


def qwen3_vl_config(tokenizer: Any, patch_size: int = PATCH) -> Qwen3VLConfig:
    start, end, image = tokenizer.convert_tokens_to_ids(list(VISION))
    return Qwen3VLConfig(
        text_config={
            **LANGUAGE,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "patch_size": patch_size,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )


class PictureProcessor:
    """Does what transformers' own does with torchvision: a token for each 32 × 32 pixels, and their patches."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> Any:
        return [self.tokenizer.apply_chat_template(messages, **kwargs)]

    def __call__(self, text: list[str], images: Any = None, **kwargs: Any) -> BatchEncoding:
        if images is None:
            return self.tokenizer(text, **kwargs)
        grids = [(1, image.height // PATCH, image.width // PATCH) for image in images]
        each, pad = iter(grids), VISION[2]
        text = [re.sub(re.escape(pad), lambda _: pad * (math.prod(next(each)) // 4), line) for line in text]
        encoded = self.tokenizer(text, **kwargs)
        colours = [image.convert("RGB").getpixel((0, 0))[0] / 255 for image in images]
        patches = [
            torch.full((math.prod(grid), 3 * 2 * PATCH**2), colour) for colour, grid in zip(colours, grids, strict=True)
        ]
        pads = (encoded["input_ids"] == self.tokenizer.convert_tokens_to_ids(pad)).int()
        return BatchEncoding(
            {
                **encoded,
                "pixel_values": torch.cat(patches),
                "image_grid_thw": torch.tensor(grids),
                "mm_token_type_ids": pads,
            }
        )
