"""ImageReward (arXiv 2304.05977): what people would think of an image for its prompt.

The package image-reward 1.5 needs timm 0.6.13, fairscale and functions that transformers has dropped, so its checkpoint
is read into transformers' own BLIP, which is the same network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from benchmarks.paper_table.metrics.views import clip_input

__all__ = ["ImageReward"]

State = Mapping[str, torch.Tensor]

HEAD_WIDTH = 64  # of every attention head in both halves
TEXT_LENGTH = 35
#: Of the rewards it was trained on: a score has mean 0 and spread 1 there.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
EYE, EAR, JUDGE = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
#: Of BLIP's pretraining, unused here; and a buffer that transformers makes itself.
UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|.*\.position_ids$")
#: A name in the original vision encoder to its name in transformers'.
EYE_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"\.attn\.", ".self_attn."),
)


class ImageReward:
    """The network of a checkpoint in the original layout, whose tensors say their sizes.

    Raises ValueError for a checkpoint of other parts than it should have.
    """

    def __init__(self, state: State, tokenizer: Any) -> None:
        parts = _parts(state)
        eye, ear = parts[EYE], parts[EAR]
        width = eye["embeddings.patch_embedding.weight"].shape[0]
        self.image_px = _image_px(eye)
        self._eye = _filled(BlipVisionModel(_eye_config(eye, self.image_px)), eye)
        self._ear = _filled(BlipTextModel(_ear_config(ear, width), add_pooling_layer=False), ear)
        self._judge = _filled(_judge(parts[JUDGE]), parts[JUDGE])
        self._tokenizer = tokenizer
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        for part in (self._eye, self._ear, self._judge):
            part.to(device)
        self._device = device

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Returns a score an image, on the scale on which people's ratings have mean 0 and spread 1."""
        tokens = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        )
        return self.of_tokens(images, tokens.input_ids, tokens.attention_mask)

    @torch.inference_mode()
    def of_tokens(self, images: Sequence[Image.Image], ids: torch.Tensor, mask: torch.Tensor) -> list[float]:
        """ids, mask (N, T)."""
        seen = self._eye(clip_input(images, self.image_px).to(self._device)).last_hidden_state
        heard = self._ear(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=self._device),
        ).last_hidden_state
        rewards: list[float] = ((self._judge(heard[:, 0])[:, 0] - REWARD_MEAN) / REWARD_STD).tolist()
        return rewards


def _parts(state: State) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the tensors of each part under the names they have here."""
    parts: dict[str, dict[str, torch.Tensor]] = {EYE: {}, EAR: {}, JUDGE: {}}
    for name, tensor in state.items():
        if UNUSED.match(name):
            continue
        found = next((part for part in parts if name.startswith(part)), None)
        if found is None:
            raise ValueError(f"a checkpoint of ImageReward has no {name}")
        parts[found][_eye_name(name.removeprefix(EYE)) if found == EYE else name.removeprefix(found)] = tensor
    return parts


def _eye_name(name: str) -> str:
    for pattern, replacement in EYE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _filled(module: nn.Module, state: State) -> nn.Module:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"not a checkpoint of ImageReward: {error}") from error
    return module.eval().float()


def _layers(state: State, prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))


def _image_px(eye: State) -> int:
    patch_px: int = eye["embeddings.patch_embedding.weight"].shape[-1]
    patches: int = eye["embeddings.position_embedding"].shape[1] - 1
    return patch_px * math.isqrt(patches)


def _eye_config(eye: State, image_px: int) -> BlipVisionConfig:
    width, _, patch_px, _ = eye["embeddings.patch_embedding.weight"].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=eye["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_layers(eye, "encoder.layers."),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=image_px,
        patch_size=patch_px,
        layer_norm_eps=1e-6,
    )


def _ear_config(ear: State, seen_width: int) -> BlipTextConfig:
    words, width = ear["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=seen_width,
        intermediate_size=ear["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_layers(ear, "encoder.layer."),
        num_attention_heads=width // HEAD_WIDTH,
        max_position_embeddings=ear["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        is_decoder=True,  # which is how transformers is told to look at the image
    )


def _judge(state: State) -> nn.Sequential:
    """Linear layers alone; where the original drops out while training, nothing stands."""
    layers = [nn.Identity() for _ in range(_layers(state, ""))]
    sized: list[nn.Module] = [
        nn.Linear(state[f"{i}.weight"].shape[1], state[f"{i}.weight"].shape[0]) if f"{i}.weight" in state else layer
        for i, layer in enumerate(layers)
    ]
    return nn.Sequential(*sized)
