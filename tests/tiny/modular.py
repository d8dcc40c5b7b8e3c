"""Small modular pipelines of models that have no classic one, from a prompt to latents, by blocks of diffusers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AnimaTextConditioner,
    FlowMatchEulerDiscreteScheduler,
    MiniMaxH3Scheduler,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import SequentialPipelineBlocks
from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep
from diffusers.modular_pipelines.anima.modular_blocks_anima import AnimaCoreDenoiseStep
from diffusers.modular_pipelines.cosmos.modular_blocks_cosmos3 import Cosmos3OmniBlocks
from diffusers.modular_pipelines.cosmos.modular_blocks_cosmos3_distilled import Cosmos3DistilledBlocks
from diffusers.modular_pipelines.echo.modular_blocks_echo import EchoDenoiseStep, EchoTextConditioningStep
from diffusers.modular_pipelines.flux3.encoders import Flux3DistilledTextEncoderStep, Flux3TextEncoderStep
from diffusers.modular_pipelines.flux3.modular_blocks_flux3 import Flux3CoreDenoiseStep
from diffusers.modular_pipelines.flux3.modular_blocks_flux3_distilled import Flux3DistilledCoreDenoiseStep
from diffusers.modular_pipelines.minimax_h3.encoders import MiniMaxH3TextEncoderStep
from diffusers.modular_pipelines.minimax_h3.modular_blocks_minimax_h3 import MiniMaxH3CoreDenoiseStep
from diffusers.modular_pipelines.wan_animate_2.denoise import WanAnimate2DenoiseStep
from diffusers.modular_pipelines.wan_animate_2.encoders import WanAnimate2TextEncoderStep
from transformers import Qwen3Config, Qwen3Model, Qwen3VLForConditionalGeneration

from tests.tiny import anima, cosmos3, flux3, ltx2, minimax_h3, wan_animate2
from tests.tiny.chat import chat_tokenizer, language_model
from tests.tiny.common import WIDTH, Case, far_apart
from tests.tiny.qwen3_vl import qwen3_vl_config
from tests.tiny.qwen_image import VISION
from tests.tiny.video import umt5
from tests.tiny.wan import wan_vae
from training import text
from training.shapes.world import WORDS


def _pipeline(parts: dict[str, Any], settings: dict[str, Any] | None = None, /, **blocks: Any) -> Any:
    """A pipeline of these blocks and parts. settings: properties of its class that large models have otherwise."""
    torch.manual_seed(0)
    pipe = SequentialPipelineBlocks.from_blocks_dict(blocks).init_pipeline()
    pipe.__class__ = type(type(pipe).__name__, (type(pipe),), settings or {})
    pipe.update_components(**parts)
    return pipe


class _Processor:
    """Of a vision language model, for text alone."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.apply_chat_template = tokenizer.apply_chat_template

    def create_mm_token_type_ids(self, rows: list[list[int]]) -> list[list[int]]:
        return [[0] * len(ids) for ids in rows]


def _qwen3_vl() -> tuple[Any, Any]:
    tokenizer = chat_tokenizer(extra=VISION)
    return tokenizer, far_apart(Qwen3VLForConditionalGeneration(qwen3_vl_config(tokenizer)))


def flux3_pipeline(*, is_distilled: bool = False) -> Any:
    tokenizer, encoder = _qwen3_vl()
    model = flux3.denoiser(joint_attention_dim=2 * WIDTH, flow_map=is_distilled)
    parts = {
        "text_encoder": encoder,
        "tokenizer": _Processor(tokenizer),
        "transformer": model,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }
    if is_distilled:
        return _pipeline(parts, text=Flux3DistilledTextEncoderStep(), denoise=Flux3DistilledCoreDenoiseStep())
    parts["guider"] = ClassifierFreeGuidance(guidance_scale=1.0)
    return _pipeline(parts, text=Flux3TextEncoderStep(), denoise=Flux3CoreDenoiseStep())


def flux3_distilled(seed: int = 0) -> Any:
    return flux3_pipeline(is_distilled=True)


def flux3_base(seed: int = 0) -> Any:
    return flux3_pipeline()


def h3(seed: int = 0) -> Any:
    tokenizer, encoder = _qwen3_vl()
    parts = {
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "processor": _Processor(tokenizer),
        "transformer": minimax_h3.denoiser(),
        "scheduler": MiniMaxH3Scheduler(),
        "audio_scheduler": MiniMaxH3Scheduler(shift=3.0),
    }
    settings = {
        "text_encoder_layer": 1,
        "vae_latent_channels": minimax_h3.CHANNELS,
        "audio_latent_channels": minimax_h3.AUDIO_CHANNELS,
    }
    return _pipeline(parts, settings, text=MiniMaxH3TextEncoderStep(), denoise=MiniMaxH3CoreDenoiseStep())


def cosmos3_modular(classic: Any, blocks: type = Cosmos3OmniBlocks, **more: Any) -> Any:
    """The modular pipeline of the classic one's parts, with others in their place."""
    names = ("transformer", "text_tokenizer", "vae", "scheduler")
    pipe = blocks().init_pipeline()
    pipe.update_components(**({name: getattr(classic, name) for name in names} | more))
    pipe.disable_safety_checker()
    return pipe


def cosmos3_distilled(seed: int = 0) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    return cosmos3_modular(cosmos3.pipeline(), Cosmos3DistilledBlocks, scheduler=scheduler, distilled_sigmas=[1.0, 0.5])


def anima_pipeline(seed: int = 0) -> Any:
    tokenizer, t5_tokenizer = chat_tokenizer(), text.t5_tokenizer(WORDS)
    conditioner = AnimaTextConditioner(
        source_dim=WIDTH,
        target_dim=WIDTH,
        model_dim=WIDTH,
        num_layers=2,
        num_attention_heads=2,
        target_vocab_size=len(t5_tokenizer),
        min_sequence_length=15,
    )
    parts = {
        "text_encoder": language_model(Qwen3Model, Qwen3Config, tokenizer),
        "tokenizer": tokenizer,
        "t5_tokenizer": t5_tokenizer,
        "text_conditioner": conditioner,
        "transformer": anima.denoiser(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
    }
    return _pipeline(parts, text=AnimaTextEncoderStep(), denoise=AnimaCoreDenoiseStep())


def echo_pipeline(seed: int = 0) -> Any:
    classic = ltx2.ltx2()
    parts = {name: getattr(classic, name) for name in ("text_encoder", "tokenizer", "connectors", "transformer")}
    settings = {"audio_latent_mel_bins": 2}
    return _pipeline(parts, settings, text=EchoTextConditioningStep(), denoise=EchoDenoiseStep())


def wan_animate2_pipeline(seed: int = 0) -> Any:
    model = wan_animate2.denoiser(in_dim=12)
    wan_animate2.make_mask(model, frames=2)
    parts = {
        "transformer": model,
        "vae": wan_vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
        **umt5(),
    }
    return _pipeline(parts, text=WanAnimate2TextEncoderStep(), denoise=WanAnimate2DenoiseStep())


_IMAGE = {"height": 32, "width": 32}
_ONE: dict[str, Any] = {"takes": "one prompt", "output": "latents"}
_FLUX3: dict[str, Any] = {
    "options": _IMAGE | {"text_encoder_out_layers": (1, 2)},
    "text_tokens": 80,
    "attention": "text_first",
} | _ONE

MODULAR = (
    Case("flux3", flux3_base, **_FLUX3),
    Case("flux3-distilled", flux3_distilled, **_FLUX3),
    Case(
        "minimax-h3",
        h3,
        options=_IMAGE | {"num_frames": 124},
        attention="text_first",
        fewest_steps=3,  # of which the last is free of noise
        **_ONE,
    ),
    Case(
        "cosmos3-distilled",
        cosmos3_distilled,
        options=cosmos3.OPTIONS,
        text=("input_ids",),
        text_tokens=10,
        attention="beside",
        **_ONE,
    ),
    Case("anima", anima_pipeline, options={"height": 64, "width": 64}, **_ONE),
    Case(
        "echo",
        echo_pipeline,
        options={"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 15, "sigmas": (1.0, 0.4, 0.0)},
        text=(
            "encoder_hidden_states",
            "audio_encoder_hidden_states",
            "encoder_attention_mask",
            "audio_encoder_attention_mask",
        ),
        **_ONE,
    ),
    Case(
        "wan-animate-2",
        wan_animate2_pipeline,
        options={
            **_IMAGE,
            "prompt_ref": "a",
            "driving_video_pixels": torch.rand(1, 3, 5, 32, 32),
            "reference_image_latents": torch.rand(8, 1, 4, 4),
            "effective_segment": 4,
            "segment_frame_length": 5,
            "num_segments": 1,
            "max_seq_len": 3 * 4,
            "max_seq_len_ref": 2 * 4,
            "grid_sizes_ref": torch.tensor([[2, 2, 2]]),
            "condition_clip_context": torch.rand(1, 5, 1280),
            "denoiser_input_fields": {"encoder_hidden_states_image": torch.rand(1, 5, 1280)},
        },
        text_tokens=wan_animate2.TEXT,
        is_plain=lambda call: call["kv_cache_mode"] == "extract",
        takes="one prompt",
        output="segment_frames",
    ),
)
