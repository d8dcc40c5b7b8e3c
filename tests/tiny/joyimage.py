"""JoyImage-Edit of a prompt alone and with a picture given, and Edit Plus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)
from PIL import Image
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import BATCHED, SEPARATE, WIDTH, Case, far_apart
from tests.tiny.qwen3_vl import PictureProcessor, qwen3_vl_config
from tests.tiny.qwen_image import VISION


class Vae(AutoencoderKLWan):
    """Encodes a picture the same way every time; the pipeline draws from what it is without a generator."""

    def encode(self, picture: torch.Tensor) -> SimpleNamespace:
        mode = super().encode(picture).latent_dist.mode
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=mode, mode=mode))


TEMPLATE = "<|im_start|>user {}<|im_end|><|im_start|>assistant"


def joyimage(
    seed: int = 0,
    kind: Any = JoyImageEditPipeline,
    denoiser: Any = JoyImageEditTransformer3DModel,
    rope: str = "mrope",
) -> Any:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    transformer = denoiser(
        in_channels=4,
        hidden_size=32,
        num_attention_heads=2,
        text_dim=WIDTH,
        num_layers=2,
        rope_dim_list=[4, 4, 8],
        rope_type=rope,
    )
    for name, parameter in transformer.named_parameters():  # modulations are zero as made
        if "modulate_table" in name:
            nn.init.normal_(parameter, std=0.5)
        if "attn_qkv.weight" in name or "attn_proj.weight" in name:
            parameter.data.mul_(2)
    encoder = far_apart(Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer)))
    pipe = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=Vae(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        processor=PictureProcessor(tokenizer),
    )
    # The real sizes begin at half a megapixel.
    sizes = pipe.vae_image_processor if kind is JoyImageEditPipeline else pipe.image_processor
    sizes.get_default_height_width = lambda image, height=None, width=None: (64, 96)
    pipe.prompt_template_encode = {"image": TEMPLATE, "multiple_images": "{}<|im_start|>assistant"}
    pipe.prompt_template_encode_start_idx = {"image": 1, "multiple_images": 1}
    return pipe


def joyimage_rope(seed: int = 0) -> JoyImageEditPipeline:
    return joyimage(seed, rope="rope")


def joyimage_plus(seed: int = 0) -> JoyImageEditPlusPipeline:
    return joyimage(seed, JoyImageEditPlusPipeline, JoyImageEditPlusTransformer3DModel, "rope")


_PICTURE = Image.new("RGB", (96, 64), (200, 40, 40))
_OPTIONS = {"guidance_scale": 1.0, "height": 64, "width": 96}

CASES = (
    *(
        Case(
            name,
            make,
            options=_OPTIONS | more,
            cfg={"guidance_scale": 3.0},
            conditional_rows=SEPARATE,
            attention="text_last",
            one_length=True,
            beside="a blue square",  # the pipeline masks no padding
        )
        for name, make, more in (
            ("joyimage-edit", joyimage, {}),
            ("joyimage-edit-picture", joyimage_rope, {"image": _PICTURE}),
        )
    ),
    *(
        Case(
            name,
            joyimage_plus,
            options=_OPTIONS | more,
            cfg={"guidance_scale": 3.0},
            conditional_rows=BATCHED if takes != "one prompt" else (False, True),
            text=("encoder_hidden_states", "encoder_hidden_states_mask"),
            attention="text_last",
            takes=takes,
        )
        for name, more, takes in (
            ("joyimage-edit-plus", {}, "without copies"),
            ("joyimage-edit-plus-pictures", {"images": [_PICTURE, _PICTURE]}, "one prompt"),
        )
    ),
)
