"""Models of sound: Stable Audio, LongCat-Audio and ACE-Step."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    AutoencoderSAME,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    LongCatAudioDiTPipeline,
    LongCatAudioDiTTransformer,
    LongCatAudioDiTVae,
    StableAudio3DiTModel,
    StableAudio3DurationEmbedder,
    StableAudio3Pipeline,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from torch import nn
from transformers import Qwen3Config, Qwen3Model, T5GemmaConfig, T5GemmaEncoderModel

from tests.tiny.chat import chat_tokenizer, language_model
from tests.tiny.common import SEPARATE, WIDTH, Case, far_apart, strengthen
from tests.tiny.fixed_length_tokenizers import EvenTokens
from tests.tiny.gemma import gemma_tokenizer
from tests.tiny.video import umt5
from training import text
from training.shapes.world import WORDS

CHANNELS, TOKENS, LATENTS_PER_S = 4, 14, 10


def vae(kind: type[nn.Module], **sizes: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # they normalize their weights by a deprecated function
        return kind(**sizes).eval()


def oobleck() -> AutoencoderOobleck:
    return vae(
        AutoencoderOobleck,
        encoder_hidden_size=CHANNELS,
        downsampling_ratios=[2, 2],
        channel_multiples=[1, 2],
        decoder_channels=CHANNELS,
        decoder_input_channels=CHANNELS,
        sampling_rate=4 * LATENTS_PER_S,
    )


def stable_audio(seed: int = 0) -> StableAudioPipeline:
    torch.manual_seed(seed)
    tokenizer = text.t5_tokenizer(WORDS)
    tokenizer.model_max_length = TOKENS
    t5 = far_apart(text.t5_encoder(tokenizer, WIDTH))
    transformer = StableAudioDiTModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_attention_heads=1,
        cross_attention_dim=16,
        time_proj_dim=16,
        global_states_input_dim=2 * WIDTH,
        cross_attention_input_dim=WIDTH,
    )
    strengthen(transformer, 4.0)
    return StableAudioPipeline(
        vae=oobleck(),
        text_encoder=t5,
        projection_model=StableAudioProjectionModel(WIDTH, WIDTH, min_value=0, max_value=8).eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        scheduler=EDMDPMSolverMultistepScheduler(
            sigma_min=0.3, sigma_max=500.0, sigma_schedule="exponential", prediction_type="v_prediction"
        ),
    )


def stable_audio3(seed: int = 0) -> StableAudio3Pipeline:
    torch.manual_seed(seed)
    tokenizer = gemma_tokenizer()
    tokenizer.model_max_length = TOKENS
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    gemma = sizes | {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(tokenizer)}
    encoder = far_apart(T5GemmaEncoderModel(T5GemmaConfig(encoder=gemma, decoder=gemma, is_encoder_decoder=False)))
    transformer = StableAudio3DiTModel(
        io_channels=CHANNELS,
        embed_dim=32,
        depth=2,
        num_heads=2,
        cond_token_dim=WIDTH,
        global_cond_dim=WIDTH,
        local_add_cond_dim=CHANNELS + 1,
        timestep_features_dim=16,
        num_memory_tokens=2,
    )
    strengthen(transformer, 4.0)
    nn.init.normal_(transformer.prompt_padding_embedding)
    return StableAudio3Pipeline(
        vae=vae(
            AutoencoderSAME,
            patch_size=2,
            encoder_channels=8,
            encoder_c_mults=(1,),
            encoder_strides=(2,),
            encoder_transformer_depths=(1,),
            latent_dim=CHANNELS,
            dim_heads=4,
            sampling_rate=4 * LATENTS_PER_S,
        ),
        text_encoder=encoder,
        tokenizer=tokenizer,
        duration_embedder=StableAudio3DurationEmbedder(output_dim=WIDTH, fourier_dim=16).eval(),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
    )


def longcat_audio(seed: int = 0) -> LongCatAudioDiTPipeline:
    torch.manual_seed(seed)
    parts = umt5()
    transformer = LongCatAudioDiTTransformer(
        dit_dim=32, dit_depth=2, dit_heads=2, dit_text_dim=WIDTH, latent_dim=CHANNELS, cross_attn_norm=True
    )
    strengthen(transformer, 4.0)
    for parameter in transformer.parameters():
        if not parameter.any():  # outputs and modulation, which start at zero
            nn.init.normal_(parameter, std=0.2)
    return LongCatAudioDiTPipeline(
        vae=vae(
            LongCatAudioDiTVae,
            channels=CHANNELS,
            c_mults=[1, 2],
            strides=[2],
            latent_dim=CHANNELS,
            encoder_latent_dim=2 * CHANNELS,
            downsampling_ratio=2,
            sample_rate=2 * LATENTS_PER_S,
        ),
        # The pipeline pads to the longest prompt, and the model mixes the padding in.
        **(parts | {"tokenizer": EvenTokens(parts["tokenizer"], TOKENS, "on")}),
        transformer=transformer.eval(),
    )


def ace_step(seed: int = 0) -> AceStepPipeline:
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 1}
    transformer = AceStepTransformer1DModel(
        **sizes,
        num_hidden_layers=2,
        head_dim=16,
        in_channels=3 * CHANNELS,
        audio_acoustic_hidden_dim=CHANNELS,
        sliding_window=2,
    )
    strengthen(transformer, 4.0)
    pipe = AceStepPipeline(
        vae=oobleck(),
        text_encoder=language_model(Qwen3Model, Qwen3Config, tokenizer),
        # The model masks no padding: how much of it a prompt reads hangs on the others of its batch.
        tokenizer=EvenTokens(tokenizer, TOKENS, "on"),
        transformer=transformer.eval(),
        condition_encoder=AceStepConditionEncoder(
            **sizes,
            text_hidden_dim=WIDTH,
            timbre_hidden_dim=CHANNELS,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
            head_dim=16,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
    )
    pipe._format_prompt = lambda prompt, lyrics, **_: (prompt, lyrics)
    return pipe


CASES = (
    Case(
        "stable-audio",
        stable_audio,
        options={"guidance_scale": 1.0},
        cfg={"guidance_scale": 4.0},
        output="audios",
        # A quarter of log σ, from 1.55 down to -0.3; the first two of four steps are the noisier half.
        timestep=lambda told: 1000.0 * (told > 0.6),
        fewest_steps=2,
    ),
    Case(
        "stable-audio-3",
        stable_audio3,
        options={"guidance_scale": 1.0, "duration": 0.8, "logsnr_max": 6.0},
        cfg={"guidance_scale": 4.0},
        text=("encoder_hidden_states", "encoder_attention_mask"),
        output="audios",
        timestep=lambda told: 1000 * told,
        differential=True,
    ),
    Case(
        "longcat-audio",
        longcat_audio,
        options={"guidance_scale": 1.0, "audio_duration_s": 0.8},
        cfg={"guidance_scale": 4.0},
        conditional_rows=SEPARATE,
        text=("encoder_hidden_states", "encoder_attention_mask"),
        modulation="adaln_global_mlp",
        output="audios",
        timestep=lambda told: 1000 - told,
        takes="without copies",
    ),
    Case(
        "ace-step",
        ace_step,
        options={"guidance_scale": 1.0, "audio_duration": 0.8, "lyrics": ["a small circle"] * 3, "shift": 1.0},
        cfg={"guidance_scale": 4.0},
        conditional_rows=(True, True, False, False),
        output="audios",
        timestep=lambda told: 1000 * told,
        takes="without copies",
    ),
)
