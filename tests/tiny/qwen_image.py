"""Qwen-Image, and its Edit forms for tests of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageLayeredPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen

VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def qwen_vl_encoder(tokenizer: Any, width: int = WIDTH) -> Qwen2_5_VLForConditionalGeneration:
    start, end, image = tokenizer.convert_tokens_to_ids(list(VISION))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": 8,
            "window_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return far_apart(Qwen2_5_VLForConditionalGeneration(config))


def qwen_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def qwen_image(
    seed: int = 0,
    kind: Any = QwenImagePipeline,
    config: dict[str, Any] | None = None,
    parts: Any = lambda tokenizer: {},
) -> Any:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        **(config or {}),
    )
    strengthen(transformer)
    for block in transformer.transformer_blocks:  # gates nearly shut, as initialised
        block.img_mod[1].weight.data.mul_(10)
        block.txt_mod[1].weight.data.mul_(10)
    pipe = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=qwen_vae(),
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        **parts(tokenizer),
    )
    pipe.prompt_template_encode = "<|im_start|>user {}<|im_end|><|im_start|>assistant"
    pipe.prompt_template_encode_start_idx = 2
    return pipe


CASES = (
    Case(
        "qwen-image",
        qwen_image,
        options={"height": 16, "width": 24, "true_cfg_scale": 1.0},
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_hidden_states_mask"),
        attention="text_first",
    ),
)


class _TextAlone:
    """Stands for the reader of text and image, and reads the text: what it sees of an image is its own affair."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: Any, images: Any, padding: Any, return_tensors: str) -> Any:
        return self.tokenizer(text, padding=padding, return_tensors=return_tensors)


@contextmanager
def small_images() -> Iterator[None]:
    """Lets the pipelines that edit images keep the size of a small one, where they would resize it to a megapixel."""
    sizes = {
        QwenImageEditPipeline.__module__: (32, 16, None),
        QwenImageEditPlusPipeline.__module__: (32, 16),
        QwenImageLayeredPipeline.__module__: (32, 16),
        "diffusers.modular_pipelines.qwenimage.encoders": (32, 16, None),
    }
    with ExitStack() as stack:
        for module, size in sizes.items():
            __import__(module)
            replaced = mock.patch.object(sys.modules[module], "calculate_dimensions", lambda *area, size=size: size)
            stack.enter_context(replaced)
        yield


def _edit(name: str, kind: Any, options: dict[str, Any], **config: Any) -> Case:
    make = partial(qwen_image, kind=kind, config=config, parts=lambda tokenizer: {"processor": _TextAlone(tokenizer)})
    return Case(
        name,
        make,
        options=options | {"true_cfg_scale": 1.0},
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        text=("encoder_hidden_states", "encoder_hidden_states_mask"),
        attention="text_first",
        takes="one prompt",
    )


_IMAGE = Image.new("RGB", (32, 16), (200, 40, 40))
#: To be called within `small_images`.
EDIT = _edit("edit", QwenImageEditPipeline, {"image": _IMAGE})
EDIT_PLUS = _edit("edit-plus", QwenImageEditPlusPipeline, {"image": [_IMAGE, _IMAGE]}, zero_cond_t=True)
LAYERED = _edit(
    "layered",
    QwenImageLayeredPipeline,
    {"image": _IMAGE, "layers": 2, "output_type": "pt"},  # it has no output of latents
    use_layer3d_rope=True,
    use_additional_t_cond=True,
)
EDITS = (EDIT, EDIT_PLUS, LAYERED)
