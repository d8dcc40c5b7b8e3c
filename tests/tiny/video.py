"""What small video pipelines share: encoders of text and image, a picture to start from."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from tests.tiny.common import WIDTH, far_apart
from training import text
from training.shapes.world import WORDS

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def spare_ftfy(*pipelines: type) -> None:
    """Stands in for a package that these pipelines clean their prompts by, and that the tests need not install."""
    for each in pipelines:
        vars(sys.modules[each.__module__]).setdefault("ftfy", SimpleNamespace(fix_text=str))


def umt5() -> dict[str, Any]:
    """Text encoder and tokenizer, by a pipeline's names."""
    tokenizer = text.t5_tokenizer(WORDS)
    encoder = far_apart(
        UMT5EncoderModel(
            UMT5Config(
                vocab_size=len(tokenizer),
                d_model=WIDTH,
                d_kv=16,
                d_ff=WIDTH,
                num_layers=2,
                num_heads=2,
                dropout_rate=0.0,
            )
        )
    )
    return {"text_encoder": encoder, "tokenizer": tokenizer}


def clip_vision() -> dict[str, Any]:
    """Image encoder (5 tokens) and processor, by a pipeline's names."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}
