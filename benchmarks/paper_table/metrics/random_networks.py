"""Small networks with random weights in the layouts of the real ones: they prove the plumbing and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from training import text
from training.shapes.world import WORDS

__all__ = ["Features", "clip", "image_reward_state", "tokenizer"]


class Features(nn.Module):
    """Stands where the Inception does: (N, 3, H, W) uint8 to (N, num_features)."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        self._see = nn.Conv2d(3, self.num_features, 9, stride=4)
        fill(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Means over the image of what was seen."""
        found: torch.Tensor = self._see(images.float() / 255).relu().mean((2, 3))
        return found


def tokenizer() -> Any:
    return text.clip_tokenizer(WORDS)


def clip() -> Any:
    words = tokenizer()
    encoder = text.clip_encoder(words, 16).config.to_dict()
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    return fill(CLIPModel(CLIPConfig(text_config=encoder, vision_config=vision, projection_dim=16)))


def fill(module: nn.Module) -> nn.Module:
    """Returns every tensor by its name alone, so that a module of the same names is the same anywhere."""
    named = {name: value(name, tuple(each.shape)) for name, each in module.named_parameters()}
    module.load_state_dict(named, strict=False)
    return module.eval().requires_grad_(False)


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    drawn *= 0.2 if len(shape) > 1 else 0.1
    return 1 + drawn if "norm" in name.lower() and name.endswith("weight") else drawn


def image_reward_state(
    words: int, *, seen: int = 128, heard: int = 64, layers: int = 2, length: int = 40
) -> dict[str, torch.Tensor]:
    """Returns a checkpoint in ImageReward's layout, of 32-pixel images."""
    shapes = dict(_image_reward_shapes(words, seen, heard, layers, length))
    return {name: value(name, shape) for name, shape in shapes.items()}


def _image_reward_shapes(
    words: int, seen: int, heard: int, layers: int, length: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    def linear(name: str, into: int, out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (out, into)
        yield f"{name}.bias", (out,)

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)

    eye, ear = "blip.visual_encoder", "blip.text_encoder"
    yield f"{eye}.cls_token", (1, 1, seen)
    yield f"{eye}.pos_embed", (1, 5, seen)
    yield f"{eye}.patch_embed.proj.weight", (seen, 3, 16, 16)
    yield f"{eye}.patch_embed.proj.bias", (seen,)
    for i in range(layers):
        block = f"{eye}.blocks.{i}"
        yield from norm(f"{block}.norm1", seen)
        yield from linear(f"{block}.attn.qkv", seen, 3 * seen)
        yield from linear(f"{block}.attn.proj", seen, seen)
        yield from norm(f"{block}.norm2", seen)
        yield from linear(f"{block}.mlp.fc1", seen, 4 * seen)
        yield from linear(f"{block}.mlp.fc2", 4 * seen, seen)
    yield from norm(f"{eye}.norm", seen)
    yield f"{ear}.embeddings.word_embeddings.weight", (words, heard)
    yield f"{ear}.embeddings.position_embeddings.weight", (length, heard)
    yield from norm(f"{ear}.embeddings.LayerNorm", heard)
    for i in range(layers):
        block = f"{ear}.encoder.layer.{i}"
        for attention, source in (("attention", heard), ("crossattention", seen)):
            yield from linear(f"{block}.{attention}.self.query", heard, heard)
            yield from linear(f"{block}.{attention}.self.key", source, heard)
            yield from linear(f"{block}.{attention}.self.value", source, heard)
            yield from linear(f"{block}.{attention}.output.dense", heard, heard)
            yield from norm(f"{block}.{attention}.output.LayerNorm", heard)
        yield from linear(f"{block}.intermediate.dense", heard, 96)
        yield from linear(f"{block}.output.dense", 96, heard)
        yield from norm(f"{block}.output.LayerNorm", heard)
    for i, into, out in ((0, heard, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1)):
        yield from linear(f"mlp.layers.{i}", into, out)
