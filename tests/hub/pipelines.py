"""Small random pipelines that run by the defaults of the real ones: as many text layers, masks and guidance inputs."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Video,
    AutoencoderKLQwenImage,
    ClassifierFreeGuidance,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
    ErnieImagePipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    Krea2Pipeline,
    LTX2Pipeline,
    LTXConditionPipeline,
    QwenImage21Pipeline,
    QwenImageEditPlusPipeline,
    WanImageToVideoPipeline,
)
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.tiny.chat import LANGUAGE
from tests.tiny.chroma import chroma
from tests.tiny.cogvideox import cogvideox
from tests.tiny.common import WIDTH, far_apart, strengthen, vae
from tests.tiny.ernie_image import ernie_image
from tests.tiny.flux import flux
from tests.tiny.flux2 import flux2, klein
from tests.tiny.hunyuan_glyph import hunyuan_video15
from tests.tiny.hunyuan_video import hunyuan_video
from tests.tiny.krea2 import krea2
from tests.tiny.ltx import _parts as ltx_parts
from tests.tiny.ltx2 import AUDIO_LATENTS, ltx2
from tests.tiny.pixart import pixart
from tests.tiny.qwen_image import qwen_image
from tests.tiny.qwen_image21 import qwen_image21
from tests.tiny.sana import sana_sprint
from tests.tiny.sd3 import sd3
from tests.tiny.unet import sdxl
from tests.tiny.video import clip_vision
from tests.tiny.wan import LATENTS, denoiser, wan, wan_5b, wan_two, wan_vace
from tests.tiny.z_image import z_image

__all__ = [
    "chroma_hd", "cogvideox_i2v", "ernie_image_turbo", "flux2_dev", "flux2_klein", "flux_dev", "flux_kontext",
    "flux_schnell", "fp16_vae", "hunyuan_video", "hunyuan_video15_i2v", "krea2_turbo", "ltx23", "ltx_video",
    "pixart", "qwen_image", "qwen_image21_turbo", "qwen_image_edit", "sana_sprint", "sd3", "sdxl", "wan",
    "wan22_i2v", "wan_5b", "wan_flf2v", "wan_two", "wan_vace", "z_image",
]  # fmt: skip

flux_schnell = flux


def flux_dev(seed: int = 0) -> FluxPipeline:
    return _with_config(flux(seed), FluxTransformer2DModel, guidance_embeds=True)


def flux_kontext(seed: int = 0) -> FluxKontextPipeline:
    return FluxKontextPipeline(**flux_dev(seed).components)


def wan22_i2v(seed: int = 0) -> WanImageToVideoPipeline:
    """Two denoisers that are given the first frame's latents beside the noise, and no image encoder."""
    parts = wan_two(seed).components
    for name in ("transformer", "transformer_2"):
        parts[name] = denoiser(in_channels=2 * LATENTS + 4)
    return WanImageToVideoPipeline(**parts, boundary_ratio=0.9)


def wan_flf2v(seed: int = 0) -> WanImageToVideoPipeline:
    """Its denoiser reads the tokens of two images, which get positions."""
    torch.manual_seed(seed)
    image = clip_vision()
    tokens = (image["image_encoder"].config.image_size // image["image_encoder"].config.patch_size) ** 2 + 1
    model = denoiser(in_channels=2 * LATENTS + 4, image_dim=WIDTH, added_kv_proj_dim=24, pos_embed_seq_len=2 * tokens)
    return WanImageToVideoPipeline(**wan(seed).components | {"transformer": model, **image})


def flux2_klein(seed: int = 0) -> Flux2KleinPipeline:
    """Its text layers 9, 18 and 27 are concatenated."""
    pipe = _with_config(klein(seed), Flux2Transformer2DModel, joint_attention_dim=3 * WIDTH)
    config = Qwen3Config(vocab_size=len(pipe.tokenizer), **LANGUAGE | {"num_hidden_layers": 28})
    pipe.register_modules(text_encoder=far_apart(Qwen3ForCausalLM(config)))
    pipe.register_to_config(is_distilled=True)
    return pipe


def flux2_dev(seed: int = 0) -> Flux2Pipeline:
    """Its text layers 10, 20 and 30 are concatenated."""
    pipe = _with_config(flux2(seed), Flux2Transformer2DModel, joint_attention_dim=3 * WIDTH)
    config = Mistral3Config(
        text_config=MistralConfig(vocab_size=len(pipe.tokenizer), **LANGUAGE | {"num_hidden_layers": 31}),
        vision_config=PixtralVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=16,
            patch_size=8,
        ),
    )
    pipe.register_modules(text_encoder=far_apart(Mistral3ForConditionalGeneration(config)))
    return pipe


def fp16_vae() -> AutoencoderKL:
    """A VAE that pipelines leave in float16."""
    torch.manual_seed(1)
    model = vae()
    model.register_to_config(force_upcast=False)
    return model


def qwen_image21_turbo(seed: int = 0) -> QwenImage21Pipeline:
    pipe = qwen_image21(seed)
    sigmas = [1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568]
    pipe.register_to_config(sample_sigmas=sigmas)
    return pipe


def qwen_image_edit(seed: int = 0) -> QwenImageEditPlusPipeline:
    """Each image is scaled to a megapixel, so its VAE scales down by 32."""
    vae = AutoencoderKLQwenImage(
        base_dim=2, z_dim=4, dim_mult=[1] * 6, num_res_blocks=1, temperal_downsample=[False] * 5,
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    pipe = qwen_image(seed, QwenImageEditPlusPipeline, {"zero_cond_t": True}, lambda _: {"processor": None})
    pipe.register_modules(vae=vae.eval())
    pipe.transformer.proj_out.weight.data.mul_(10)
    return pipe


def krea2_turbo(seed: int = 0) -> Krea2Pipeline:
    pipe = krea2(seed)
    pipe.register_to_config(is_distilled=True)
    return pipe


def ernie_image_turbo(seed: int = 0) -> ErnieImagePipeline:
    pipe = ernie_image(seed)
    pipe.register_modules(scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0))
    return pipe


def chroma_hd(seed: int = 0) -> Any:
    pipe = chroma(seed)
    pipe.vae.register_to_config(shift_factor=0.0)
    return pipe


def cogvideox_i2v(seed: int = 0) -> CogVideoXImageToVideoPipeline:
    """CogVideoX 1.5: patches of two latent frames, the first frame's latents beside the noise, and an offset."""
    pipe = cogvideox(seed, rotary=True)
    patches = {"patch_size": 2, "patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 8}
    size = {"sample_width": 170, "sample_height": 96}  # the largest video has as many latents
    pipe = _with_config(pipe, CogVideoXTransformer3DModel, in_channels=8, **patches, **size)
    return CogVideoXImageToVideoPipeline(**pipe.components)


def hunyuan_video15_i2v(seed: int = 0) -> HunyuanVideo15ImageToVideoPipeline:
    """Its prompt stands behind 108 tokens of a chat, which are dropped."""
    parts = _with_config(hunyuan_video15(seed), HunyuanVideo15Transformer3DModel, target_size=32).components
    del parts["vae"]
    parts["tokenizer"].chat_template = "{{ 'shape ' * 108 }}" + parts["tokenizer"].chat_template
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    )
    return HunyuanVideo15ImageToVideoPipeline(
        **parts | {"guider": ClassifierFreeGuidance(guidance_scale=1.0)},
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, spatial_compression_ratio=8
        ).eval(),
        image_encoder=SiglipVisionModel(vision).eval(),
        feature_extractor=SiglipImageProcessorPil(size={"height": 8, "width": 8}),
    )


def ltx_video(seed: int = 0) -> LTXConditionPipeline:
    return LTXConditionPipeline(**ltx_parts(seed))


def ltx23(seed: int = 0) -> LTX2Pipeline:
    pipe = ltx2(
        seed, registers=128, cross_attn_mod=True, audio_cross_attn_mod=True, gated_attn=True, perturbed_attn=True
    )
    video_vae = AutoencoderKLLTX2Video.from_config(
        dict(pipe.vae.config) | {"decoder_block_out_channels": (8, 16, 32)}  # each upsampler halves them
    )
    mel_bins = pipe.audio_vae.config.mel_bins
    vocoder = LTX2Vocoder(
        in_channels=pipe.audio_vae.config.output_channels * mel_bins, hidden_channels=4 * AUDIO_LATENTS,
        upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2], resnet_kernel_sizes=[3], resnet_dilations=[[1, 3]],
    )  # fmt: skip
    pipe.register_modules(vae=video_vae.eval(), vocoder=vocoder.eval())
    return pipe


def _with_config(pipe: Any, kind: Any, **config: Any) -> Any:
    """The pipeline with a denoiser of another config."""
    former = {key: value for key, value in pipe.transformer.config.items() if key != "_use_default_values"}
    transformer = kind.from_config(former | config)  # with that list, what was a default would stay one
    strengthen(transformer)
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
        if hasattr(transformer, name):  # of Flux.2; as initialised they are nearly shut
            getattr(transformer, name).linear.weight.data.mul_(10)
    pipe.register_modules(transformer=transformer.eval())
    return pipe
