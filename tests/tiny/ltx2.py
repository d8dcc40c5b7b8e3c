"""LTX-2: video with sound."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from tests.tiny.common import BATCHED, WIDTH, Case, far_apart, strengthen
from tests.tiny.gemma import gemma_tokenizer

LATENTS = 8
AUDIO_LATENTS = 4


def gemma3(vocabulary: int) -> Gemma3ForConditionalGeneration:
    size = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=size | {"vocab_size": vocabulary, "head_dim": 16, "num_key_value_heads": 1},
        vision_config=size | {"image_size": 8, "patch_size": 4},
        mm_tokens_per_image=4,
    )
    return far_apart(Gemma3ForConditionalGeneration(config))


def connectors(**more: Any) -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=WIDTH,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16,
        video_connector_num_layers=1,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=16,
        audio_connector_num_layers=1,
        **more,
    ).eval()


def transformer(kind: Any = LTX2VideoTransformer3DModel, **more: Any) -> Any:
    model = kind(
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=WIDTH,
        audio_in_channels=AUDIO_LATENTS,
        audio_out_channels=AUDIO_LATENTS,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=WIDTH,
        **more,
    )
    strengthen(model, 4.0)
    return model


def video_vae() -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        latent_channels=LATENTS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ).eval()


def ltx2(seed: int = 0, registers: int | None = None, **more: Any) -> LTX2Pipeline:
    torch.manual_seed(seed)
    model = transformer(**more)
    tokenizer = gemma_tokenizer()
    return LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=video_vae(),
        audio_vae=AutoencoderKLLTX2Audio(
            base_channels=AUDIO_LATENTS, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, mel_bins=8
        ).eval(),
        text_encoder=gemma3(len(tokenizer)),
        tokenizer=tokenizer,
        connectors=connectors(
            video_connector_num_learnable_registers=registers, audio_connector_num_learnable_registers=registers
        ),
        transformer=model,
        vocoder=None,
    )


def ltx2_3(seed: int = 0) -> LTX2Pipeline:
    """The text is modulated by the noise level, and registers stand for its padding."""
    return ltx2(
        seed, registers=15, cross_attn_mod=True, audio_cross_attn_mod=True, gated_attn=True, perturbed_attn=True
    )


_OPTIONS = {
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "height": 64,
    "width": 64,
    "num_frames": 9,
    "max_sequence_length": 15,
}
_MORE: dict[str, Any] = {
    "text": (
        "encoder_hidden_states",
        "audio_encoder_hidden_states",
        "encoder_attention_mask",
        "audio_encoder_attention_mask",
    ),
    "output": "frames",
    # The pipelines lay out the masks of several videos a prompt in another order than their rows.
    "takes": "without copies",
}

CASES = (
    Case("ltx2", ltx2, options=_OPTIONS, cfg={"guidance_scale": 4.0}, **_MORE),
    Case(
        "ltx2.3",
        ltx2_3,
        options=_OPTIONS,
        cfg={"guidance_scale": 4.0, "stg_scale": 1.0, "modality_scale": 3.0, "spatio_temporal_guidance_blocks": [0]},
        # Then a call with perturbed attention and one with the streams apart.
        conditional_rows=(*BATCHED, False, False, False, False),
        **_MORE,
    ),
)
