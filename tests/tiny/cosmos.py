"""Cosmos Predict: three generations, which differ in their text encoders, schedulers and timesteps."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCosmos,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2TextToImagePipeline,
    CosmosTextToWorldPipeline,
    CosmosTransformer3DModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.tiny.chat import chat_tokenizer
from tests.tiny.common import WIDTH, Case, far_apart, strengthen
from tests.tiny.qwen_image import VISION, qwen_vl_encoder
from tests.tiny.wan import FRAMES, LATENTS, OPTIONS, wan_vae
from training import text
from training.shapes.world import WORDS


class Safe:
    """In place of a checker that is a package of its own."""

    def to(self, device: Any) -> None:
        pass

    def check_text_safety(self, prompt: str) -> bool:
        return True


def transformer(**more: Any) -> CosmosTransformer3DModel:
    sizes: dict[str, Any] = {
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "text_embed_dim": WIDTH,
        "adaln_lora_dim": 4,
        "max_size": (4, 16, 16),
        "concat_padding_mask": False,
        "extra_pos_embed_type": None,
    }
    model = CosmosTransformer3DModel(**(sizes | more))
    strengthen(model, 4.0)
    return model.eval()


def _t5() -> dict[str, Any]:
    tokenizer = text.t5_tokenizer(WORDS)
    encoder = far_apart(text.t5_encoder(tokenizer, WIDTH))
    return {"text_encoder": encoder, "tokenizer": tokenizer, "safety_checker": Safe()}


def cosmos_1(seed: int = 0) -> CosmosTextToWorldPipeline:
    torch.manual_seed(seed)
    scheduler = EDMEulerScheduler(sigma_max=80.0, sigma_min=0.002, sigma_data=0.5, final_sigmas_type="sigma_min")
    vae = AutoencoderKLCosmos(
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(),
        latent_channels=LATENTS,
        num_layers=1,
        temporal_compression_ratio=4,
        latents_mean=None,
        latents_std=None,
    )
    return CosmosTextToWorldPipeline(transformer=transformer(), vae=vae.eval(), scheduler=scheduler, **_t5())


class Karras(FlowMatchEulerDiscreteScheduler):
    """Takes the tensor that the pipeline gives without numpy's complaint about it."""

    def set_timesteps(self, *args: Any, sigmas: Any = None, **kwargs: Any) -> None:
        super().set_timesteps(*args, sigmas=sigmas if sigmas is None else sigmas.numpy(), **kwargs)


def cosmos_2(seed: int = 0) -> Cosmos2TextToImagePipeline:
    torch.manual_seed(seed)
    scheduler = Karras(use_karras_sigmas=True)
    return Cosmos2TextToImagePipeline(transformer=transformer(), vae=wan_vae(), scheduler=scheduler, **_t5())


def cosmos_2_5(seed: int = 0) -> Cosmos2_5_PredictBasePipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(extra=VISION)
    model = transformer(
        in_channels=LATENTS + 1,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=2 * WIDTH,
        encoder_hidden_states_channels=WIDTH,
    )
    return Cosmos2_5_PredictBasePipeline(
        transformer=model,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=tokenizer,
        vae=wan_vae(),
        safety_checker=Safe(),
    )


def _of_flow(sigma: float) -> float:
    return 1000 * sigma / (1 + sigma)


CASES = (
    Case("cosmos-1", cosmos_1, options=OPTIONS, timestep=lambda t: _of_flow(math.exp(4 * t)), **FRAMES),
    Case(
        "cosmos-2",
        cosmos_2,
        options={name: value for name, value in OPTIONS.items() if name != "num_frames"},
        timestep=lambda t: _of_flow(t / 1000),
        **(FRAMES | {"output": "images"}),
    ),
    Case("cosmos-2.5", cosmos_2_5, options=OPTIONS | {"max_sequence_length": 96}, takes="without copies", **FRAMES),
)
