"""CLIP Score (arXiv 2104.08718): how well an image fits its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from benchmarks.paper_table.metrics.views import clip_input

__all__ = ["ClipScore"]


class ClipScore:
    """100 × the cosine of both features, at least 0, an image. A long prompt is cut to what the network hears."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self._model.to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        config = self._model.config
        tokens = self._tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        pixels = clip_input(images, config.vision_config.image_size).to(self._device)
        seen = self._model.get_image_features(pixel_values=pixels).pooler_output
        heard = self._model.get_text_features(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        cosines: list[float] = torch.cosine_similarity(seen, heard).clamp(min=0).mul(100).tolist()
        return cosines
