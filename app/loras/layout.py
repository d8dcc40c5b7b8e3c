"""The keys of a LoRA file: which layer of which part of a pipeline each pair of factors belongs to.

diffusers and peft write dotted names after the part's (`transformer.blocks.0.attn.to_q.lora_A.weight`); kohya-ss writes
them flat (`lora_unet_blocks_0_attn_to_q.lora_down.weight`), with an alpha for each pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.loras.errors import LoraFileError
from app.loras.header import Tensor, abbreviate

__all__ = ["DENOISER", "Pair", "pairs_of"]

#: The part that a prefix such as `lora_unet_` means whatever the denoiser is called, and a name without any prefix.
DENOISER = "denoiser"
DOWN = r"lora_A(?:\.[A-Za-z0-9_]+)?\.weight|lora_down\.weight|lora(?:_linear_layer)?\.down\.weight"
UP = r"lora_B(?:\.[A-Za-z0-9_]+)?\.weight|lora_up\.weight|lora(?:_linear_layer)?\.up\.weight"
KEY = re.compile(rf"(?P<layer>.+?)[._](?:(?P<down>{DOWN})|(?P<up>{UP})|(?P<alpha>alpha))")
#: Old diffusers keep the factors in an attention processor.
PROCESSOR = ".processor."
#: Parts of keys by kinds of adapters that are not plain pairs of factors.
REFUSED = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "hada_w": "LoHa", "lokr_w": "LoKr", "lora_mid": "a CP LoRA",
    "oft_": "OFT", "lora_B.bias": "a LoRA with biases", "lora_embedding_": "a LoRA of embeddings",
    "emb_params": "textual inversion", "lora_controlnet": "Control-LoRA",
}  # fmt: skip
#: By the way a key begins: the part, and whether the layer's name is flat.
PREFIXES: dict[str, tuple[str, bool]] = {
    "transformer_2.": ("transformer_2", False),
    "transformer.": (DENOISER, False),
    "unet.": (DENOISER, False),
    "text_encoder_3.": ("text_encoder_3", False),
    "text_encoder_2.": ("text_encoder_2", False),
    "text_encoder.": ("text_encoder", False),
    "lora_unet_": (DENOISER, True),
    "lora_transformer_": (DENOISER, True),
    "lora_te3_": ("text_encoder_3", True),
    "lora_te2_": ("text_encoder_2", True),
    "lora_te1_": ("text_encoder", True),
    "lora_te_": ("text_encoder", True),
}
#: Wrappers around the denoiser, whose layers may have their authors' names, and not diffusers'.
WRAPPERS = ("base_model.model.", "model.diffusion_model.", "diffusion_model.")


@dataclass
class Pair:
    """The two factors of one layer.

    name: as the file has it. part: the pipeline's. layer: within that. is_flat: with underscores instead of dots.
    is_foreign: perhaps by another name than diffusers'.
    """

    name: str
    part: str
    layer: str
    is_flat: bool
    is_foreign: bool
    keys: dict[str, str] = field(default_factory=dict)  # of `down`, `up` and `alpha`


def pairs_of(tensors: Mapping[str, Tensor]) -> list[Pair]:
    """Returns the pairs of a file, each complete. Raises LoraFileError for a key that belongs to none."""
    for key in tensors:
        for mark, kind in REFUSED.items():
            if mark in key:
                raise LoraFileError(f"{kind} is not supported, only plain LoRA: {key}")
    pairs: dict[str, Pair] = {}
    for key in tensors:
        match = KEY.fullmatch(key)
        if match is None:
            raise LoraFileError(f"{abbreviate(key)} is no key of a LoRA in the layout of diffusers, peft or kohya-ss")
        pair = pairs.setdefault(match["layer"], _pair(match["layer"]))
        kind = next(kind for kind in ("down", "up", "alpha") if match[kind] is not None)
        if kind in pair.keys:
            raise LoraFileError(f"{key}: this factor is there twice, also as {pair.keys[kind]}")
        pair.keys[kind] = key
    for pair in pairs.values():
        for kind, other in (("down", "up"), ("up", "down")):
            if kind not in pair.keys:
                there = pair.keys.get(other) or pair.keys["alpha"]
                raise LoraFileError(f"{there}: the other factor of its layer is missing")
    if not pairs:
        raise LoraFileError("it holds no pairs of factors")
    return list(pairs.values())


def _pair(name: str) -> Pair:
    layer = name.replace(PROCESSOR, ".")
    for prefix, (part, is_flat) in PREFIXES.items():
        if layer.startswith(prefix):
            return Pair(name, part, layer.removeprefix(prefix), is_flat, is_foreign=is_flat)
    for wrapper in WRAPPERS:
        layer = layer.removeprefix(wrapper)
    return Pair(name, DENOISER, layer, is_flat=False, is_foreign=True)
