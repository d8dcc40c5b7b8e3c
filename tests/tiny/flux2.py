"""Flux.2, and Flux.2 Klein in its plain form, with a reference image, and with a reference image's keys kept."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from PIL import Image
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.tiny.chat import LANGUAGE, chat_tokenizer, language_model
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, flux2_vae, strengthen


def _parts(guidance_embeds: bool) -> dict[str, Any]:
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    strengthen(transformer)
    # The gates of all blocks; as initialised they are nearly shut.
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
        getattr(transformer, name).linear.weight.data.mul_(10)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": flux2_vae(4),
        "transformer": transformer.eval(),
        "tokenizer": chat_tokenizer(),
    }


def flux2(seed: int = 0) -> Flux2Pipeline:
    torch.manual_seed(seed)
    parts = _parts(guidance_embeds=True)
    config = Mistral3Config(
        text_config=MistralConfig(vocab_size=len(parts["tokenizer"]), **LANGUAGE),
        vision_config=PixtralVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=16,
            patch_size=8,
        ),
    )
    pipe = Flux2Pipeline(text_encoder=far_apart(Mistral3ForConditionalGeneration(config)), **parts)
    pipe.system_message = "shape"
    return pipe


def klein(seed: int = 0, kind: Any = Flux2KleinPipeline) -> Any:
    torch.manual_seed(seed)
    parts = _parts(guidance_embeds=False)
    return kind(text_encoder=language_model(Qwen3ForCausalLM, Qwen3Config, parts["tokenizer"]), **parts)


def klein_kv(seed: int = 0) -> Flux2KleinKVPipeline:
    return klein(seed, Flux2KleinKVPipeline)


_SIZES = {"height": 48, "width": 64, "max_sequence_length": 20, "text_encoder_out_layers": (1, 2)}
_PICTURE = Image.new("RGB", (64, 64), (200, 40, 40))  # no smaller one is taken; fewer tokens than the text has

CASES = (
    Case("flux2", flux2, options=_SIZES, attention="text_first"),
    *(
        Case(
            name,
            klein,
            options=_SIZES | {"guidance_scale": 1.0} | more,
            cfg={"guidance_scale": 3.0},
            conditional_rows=SEPARATE,
            attention="text_first",
        )
        for name, more in (("flux2-klein", {}), ("flux2-klein-picture", {"image": _PICTURE}))
    ),
    Case("flux2-klein-kv", klein_kv, options=_SIZES | {"image": _PICTURE}, attention="text_first"),
)
