"""Modular pipelines: the same images as the classic pipelines of the same models, under `nag.guide` and `NAGGuider`."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance, LTX2Guidance
from diffusers.modular_pipelines.hunyuan_video1_5 import encoders as hunyuan15

import nag
from tests import tiny
from tests.nag.support import Subject
from tests.tiny.hunyuan_glyph import GLYPH_TOKENS, IMAGE_TOKENS, TOKENS

STEPS = 2
NEGATIVE = "a blue square"
MODULES = "diffusers.modular_pipelines."


@dataclass(frozen=True)
class Form:
    """A modular pipeline whose model has a classic one.

    Attributes:
        case: the classic pipeline.
        options: of a call of either, beside the case's.
        modular: further options of the modular call.
        decodes: whether its latents are decoded; those that are not are (B, tokens, channels), here and (B, channels,
            frames, height, width) there.
        in_cfg: whether it is compared under CFG; some loops of diffusers run in no other way.
        guider: what does CFG there, from its scale.
        patches: what the case's pipeline has in place of its long templates, under the names of the blocks' modules.

    """

    case: str
    options: Mapping[str, Any] = field(default_factory=dict)
    modular: Mapping[str, Any] = field(default_factory=dict)
    decodes: bool = True
    in_cfg: bool = False
    guider: Any = ClassifierFreeGuidance
    patches: Mapping[str, Any] = field(default_factory=dict)


def without_perturbation(guidance_scale):
    return LTX2Guidance(guidance_scale, stg_scale=0.0, modality_scale=1.0, guidance_rescale=0.0)


KREA2_TEMPLATE = {
    "krea2.encoders.KREA2_TEXT_ENCODER_SELECT_LAYERS": (1, 2),
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_PREFIX": "<|im_start|>user ",
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_SUFFIX": "<|im_end|><|im_start|>assistant",
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_START_IDX": 2,
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_NUM_SUFFIX_TOKENS": 3,
}
QWEN_TEMPLATE = {
    "qwenimage.encoders.QWENIMAGE_PROMPT_TEMPLATE": "<|im_start|>user {}<|im_end|><|im_start|>assistant",
    "qwenimage.encoders.QWENIMAGE_PROMPT_TEMPLATE_START_IDX": 2,
}
HUNYUAN15_TEMPLATE = {
    "hunyuan_video1_5.encoders._get_mllm_prompt_embeds": partial(
        hunyuan15._get_mllm_prompt_embeds, tokenizer_max_length=TOKENS, crop_start=0
    ),
    "hunyuan_video1_5.encoders._get_byt5_prompt_embeds": partial(
        hunyuan15._get_byt5_prompt_embeds, tokenizer_max_length=GLYPH_TOKENS
    ),
    "hunyuan_video1_5.modular_pipeline.HunyuanVideo15ModularPipeline.vision_num_semantic_tokens": IMAGE_TOKENS,
}
WHOLE_TIMESTEPS = {"sigmas": [0.9, 0.5]}  # the modular loops cut fractions off

FORMS = {
    "ErnieImageModularPipeline": Form("ernie-image"),
    "Flux2KleinBaseModularPipeline": Form("flux2-klein", in_cfg=True),
    "Flux2KleinModularPipeline": Form("flux2-klein"),
    "Flux2ModularPipeline": Form(
        "flux2", patches={"flux2.encoders.Flux2TextEncoderStep.DEFAULT_SYSTEM_MESSAGE": "shape"}
    ),
    "FluxKontextModularPipeline": Form("flux"),
    "FluxModularPipeline": Form("flux"),
    "HeliosModularPipeline": Form("helios", WHOLE_TIMESTEPS, in_cfg=True),
    "HunyuanVideo15ModularPipeline": Form("hunyuan-15", in_cfg=True, patches=HUNYUAN15_TEMPLATE),
    "Ideogram4ModularPipeline": Form("ideogram4", modular={"guidance_schedule": [1.0] * STEPS}),
    "Krea2ModularPipeline": Form("krea2", patches=KREA2_TEMPLATE),
    "Krea2TurboModularPipeline": Form("krea2", patches=KREA2_TEMPLATE),
    "LTX25ModularPipeline": Form("ltx2.3", decodes=False, guider=without_perturbation),
    "LTX2ModularPipeline": Form("ltx2", decodes=False, guider=without_perturbation),
    "LTXModularPipeline": Form("ltx", in_cfg=True),
    "QwenImage21ModularPipeline": Form("qwen21"),
    "QwenImage21TurboModularPipeline": Form("qwen21"),
    "QwenImageModularPipeline": Form("qwen-image", patches=QWEN_TEMPLATE),
    "StableDiffusion3ModularPipeline": Form("sd3"),
    "StableDiffusionXLModularPipeline": Form("sdxl"),
    "Wan22ModularPipeline": Form("wan-two", in_cfg=True),
    "WanImage2VideoModularPipeline": Form("wan-i2v", in_cfg=True),
    "WanModularPipeline": Form("wan", in_cfg=True),
    "ZImageModularPipeline": Form("z-image"),
}

#: Modular pipelines that are not compared with a classic one, and why.
NOT_COMPARED = dict.fromkeys(
    (
        "AnimaModularPipeline",
        "Cosmos3DistilledModularPipeline",
        "Cosmos3OmniModularPipeline",
        "EchoModularPipeline",
        "Flux3DistilledModularPipeline",
        "Flux3ModularPipeline",
        "MiniMaxH3ModularPipeline",
        "MiniMaxMusic3ModularPipeline",
        "WanAnimate2DistilledModularPipeline",
        "WanAnimate2ModularPipeline",
    ),
    "has no classic pipeline, or is compared in test_modular_models.py",
)


class Modular:
    """A small modular pipeline and the classic one with the same components."""

    def __init__(self, name, form, stack):
        for target, value in form.patches.items():
            stack.enter_context(mock.patch(MODULES + target, value))
        self.form = form
        self.subject = Subject(next(case for case in tiny.CASES if case.name == form.case), steps=STEPS)
        kind = getattr(diffusers, name)
        blocks = getattr(diffusers, kind.default_blocks_name)()
        if not form.decodes:
            del blocks.sub_blocks["decode"]
        self.pipe = kind(blocks=blocks)
        parts = self.subject.pipe.components
        self.pipe.update_components(**{name: part for name, part in parts.items() if name in self.pipe.components})
        self.pipe.set_progress_bar_config(disable=True)
        self.set_guiders(form.guider, 1.0)

    def set_guiders(self, kind, *args):
        self.pipe.update_components(**{name: kind(*args) for name in self.pipe.components if "guider" in name})

    def options(self, options):
        generator = torch.Generator().manual_seed(0)
        call = {"prompt": "a red circle", "num_inference_steps": STEPS, "generator": generator, "output_type": "np"}
        return call | dict(self.subject.case.options) | options | dict(self.form.options)

    @property
    def cfg(self):
        cfg = dict(self.subject.case.cfg)
        return cfg | ({"negative_prompt": "a triangle"} if "negative_prompt" in cfg else {})

    def classic_images(self, *, cfg=False, **options):
        call = self.options((self.cfg if cfg else {}) | options)
        if "guider" in call:
            self.subject.pipe.guider = call.pop("guider")
        if not self.form.decodes:
            call["output_type"] = "latent"
        return np.asarray(getattr(self.subject.pipe(**call), self.subject.case.output))

    def images(self, *, cfg=False, **options):
        if cfg:
            self.set_guiders(
                self.form.guider, next((v for name, v in self.cfg.items() if name.endswith("_scale")), 3.0)
            )
            options = {"negative_prompt": self.cfg.get("negative_prompt")} | options
        call = self.options(options) | dict(self.form.modular)
        names = self.pipe.blocks.input_names
        call = {name: value for name, value in call.items() if name in names}
        if not self.form.decodes:
            return np.moveaxis(np.asarray(self.pipe(output="latents", **call)), 2, 1)
        return np.asarray(self.pipe(output="images" if "images" in self.pipe.blocks.output_names else "videos", **call))


@pytest.fixture
def modular(request):
    with ExitStack() as stack:
        yield Modular(request.param, FORMS[request.param], stack)


def test_every_modular_pipeline_of_diffusers_is_known():
    names = {name for name in dir(diffusers) if name.endswith("ModularPipeline")} - {"ModularPipeline"}
    assert names == FORMS.keys() | NOT_COMPARED.keys()


@pytest.mark.parametrize("modular", FORMS, indirect=True)
def test_the_image_is_the_classic_pipelines(modular):
    cfg = modular.form.in_cfg
    plain = modular.images(cfg=cfg)
    with nag.guide(modular.subject.pipe, NEGATIVE) as guidance:
        expected = modular.classic_images(cfg=cfg)
    with nag.guide(modular.pipe, NEGATIVE) as modular_guidance:
        guided = modular.images(cfg=cfg)
    assert nag.supports(modular.pipe)
    assert nag.defaults_for(modular.pipe) == nag.defaults_for(modular.subject.pipe)
    assert modular_guidance.guided_steps == guidance.guided_steps == STEPS
    assert np.abs(guided - expected.reshape(guided.shape)).max() < 1e-4
    assert np.abs(guided - plain).max() > 1e-3
    assert (modular.images(cfg=cfg) == plain).all()
