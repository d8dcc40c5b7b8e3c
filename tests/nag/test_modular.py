"""Modular pipelines: the same images as the classic pipelines of the same models, under `nag.guide` and `NAGGuider`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance, LTX2Guidance
from diffusers.hooks import LayerSkipConfig, SmoothedEnergyGuidanceConfig
from diffusers.modular_pipelines import ComponentSpec

import nag
from nag.modular import text_blocks
from tests import tiny
from tests.nag.support import Subject
from tests.tiers import slow_but
from tests.tiny import Case, helios, qwen_image, wan
from tests.tiny.hunyuan_glyph import GLYPH_TOKENS, IMAGE_TOKENS, TOKENS

# diffusers takes a NumPy array from a tensor in the way of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array_")

STEPS = 2
NEGATIVE = "a blue square"
MODULES = "diffusers.modular_pipelines."


@dataclass(frozen=True)
class Form:
    """A modular pipeline whose model has a classic one.

    Attributes:
        case: the classic pipeline, or its name among `tiny.CASES`.
        options: of a call of either, beside the case's.
        modular: further options of the modular call.
        decodes: whether its latents are decoded; those that are not are (B, tokens, channels), here and (B, channels,
            frames, height, width) there.
        in_cfg: whether it is compared under CFG; some loops of diffusers run in no other way.
        guider: what does CFG there, from its scale.
        patches: what the case's pipeline has in place of its long templates, under the names of the modules, and
        block_attributes: the same where each block keeps it.

    """

    case: str | Case
    options: Mapping[str, Any] = field(default_factory=dict)
    modular: Mapping[str, Any] = field(default_factory=dict)
    decodes: bool = True
    in_cfg: bool = False
    guider: Any = ClassifierFreeGuidance
    patches: Mapping[str, Any] = field(default_factory=dict)
    block_attributes: Mapping[str, Any] = field(default_factory=dict)


def counted_from_zero(guidance_scale: float) -> Any:
    """CFG as Z-Image's classic pipeline writes it."""
    return ClassifierFreeGuidance(guidance_scale + 1) if guidance_scale > 1 else ClassifierFreeGuidance(1.0)


def without_perturbation(guidance_scale: float) -> LTX2Guidance:
    return LTX2Guidance(guidance_scale, stg_scale=0.0, modality_scale=1.0, guidance_rescale=0.0)


KREA2_TEMPLATE = {
    "krea2.encoders.KREA2_TEXT_ENCODER_SELECT_LAYERS": (1, 2),
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_PREFIX": "<|im_start|>user ",
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_SUFFIX": "<|im_end|><|im_start|>assistant",
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_START_IDX": 2,
    "krea2.encoders._PROMPT_TEMPLATE_ENCODE_NUM_SUFFIX_TOKENS": 3,
}
QWEN_TEMPLATE = {
    "prompt_template_encode": "<|im_start|>user {}<|im_end|><|im_start|>assistant",
    "prompt_template_encode_start_idx": 2,
}
HUNYUAN15_TEMPLATE = {
    f"hunyuan_video1_5.modular_pipeline.HunyuanVideo15ModularPipeline.{name}": value
    for name, value in {
        "tokenizer_max_length": TOKENS,
        "tokenizer_2_max_length": GLYPH_TOKENS,
        "prompt_template_encode_start_idx": 0,
        "vision_num_semantic_tokens": IMAGE_TOKENS,
    }.items()
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
    "HeliosPyramidDistilledModularPipeline": Form(helios.PYRAMID_DISTILLED),
    "HeliosPyramidModularPipeline": Form(helios.PYRAMID, in_cfg=True),
    "HunyuanVideo15ModularPipeline": Form("hunyuan-15", in_cfg=True, patches=HUNYUAN15_TEMPLATE),
    "Ideogram4ModularPipeline": Form("ideogram4", modular={"guidance_schedule": [1.0] * STEPS}),
    "Krea2ModularPipeline": Form("krea2", patches=KREA2_TEMPLATE),
    "Krea2TurboModularPipeline": Form("krea2", patches=KREA2_TEMPLATE),
    "LTX25ModularPipeline": Form("ltx2.3", decodes=False, guider=without_perturbation),
    "LTX2ModularPipeline": Form("ltx2", decodes=False, guider=without_perturbation),
    "LTXModularPipeline": Form("ltx", in_cfg=True),
    "QwenImage21ModularPipeline": Form("qwen21"),
    "QwenImage21TurboModularPipeline": Form("qwen21"),
    "QwenImageEditModularPipeline": Form(qwen_image.EDIT, block_attributes=QWEN_TEMPLATE),
    "QwenImageEditPlusModularPipeline": Form(qwen_image.EDIT_PLUS, block_attributes=QWEN_TEMPLATE),
    "QwenImageLayeredModularPipeline": Form(qwen_image.LAYERED, {"output_type": "np"}, block_attributes=QWEN_TEMPLATE),
    "QwenImageModularPipeline": Form("qwen-image", block_attributes=QWEN_TEMPLATE),
    "StableDiffusion3ModularPipeline": Form("sd3"),
    "StableDiffusionXLModularPipeline": Form("sdxl"),
    "Wan22Image2VideoModularPipeline": Form(wan.WAN22_I2V, in_cfg=True),
    "Wan22ModularPipeline": Form("wan-two", in_cfg=True),
    "Wan22VaceModularPipeline": Form(wan.WAN22_VACE, in_cfg=True),
    "WanImage2VideoModularPipeline": Form("wan-i2v", in_cfg=True),
    "WanModularPipeline": Form("wan", in_cfg=True),
    "ZImageModularPipeline": Form("z-image", guider=counted_from_zero),
}

#: Of these the ones whose loops take no guider.
WITHOUT_GUIDER = {
    "Flux2KleinModularPipeline",
    "Flux2ModularPipeline",
    "FluxKontextModularPipeline",
    "FluxModularPipeline",
    "Ideogram4ModularPipeline",
    "Krea2TurboModularPipeline",
    "QwenImage21TurboModularPipeline",
}

#: Modular pipelines that have no classic one, or are compared with it in test_modular_models.py.
NOT_COMPARED = {
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
}
KNOWN = FORMS.keys() | NOT_COMPARED
#: Of these the ones that this diffusers has.
AVAILABLE = {name for name in KNOWN if hasattr(diffusers, name)}


#: The classic pipelines, by the names of their cases: to make one takes longer than to run it.
SUBJECTS: dict[str, Subject] = {}


class Modular:
    """A small modular pipeline and the classic one with the same components."""

    def __init__(self, name: str, form: Any, stack: ExitStack) -> None:
        for target, value in form.patches.items():
            stack.enter_context(mock.patch(MODULES + target, value))
        stack.enter_context(qwen_image.small_images())
        self.form = form
        case = form.case
        if isinstance(case, str):
            case = tiny.find_case(case)
        if case.name not in SUBJECTS:
            SUBJECTS[case.name] = Subject(case, steps=STEPS)
        self.subject = SUBJECTS[case.name]
        kind = getattr(diffusers, name)
        blocks = getattr(diffusers, kind.default_blocks_name)()
        # Blocks are shared by all pipelines of a kind.
        for block in text_blocks(blocks):
            for attribute, value in form.block_attributes.items():
                stack.enter_context(mock.patch.object(block, attribute, value))
        if not form.decodes:
            del blocks.sub_blocks["decode"]
        self.pipe = kind(blocks=blocks)
        parts = self.subject.pipe.components
        self.pipe.update_components(**{name: part for name, part in parts.items() if name in self.pipe.components})
        self.pipe.set_progress_bar_config(disable=True)
        self.set_guiders(form.guider, 1.0)

    def set_guiders(self, kind: Any, *args: Any) -> None:
        self.pipe.update_components(**{name: kind(*args) for name in self.pipe.components if "guider" in name})

    def options(self, options: dict[str, Any]) -> Any:
        generator = torch.Generator().manual_seed(0)
        call = {"prompt": "a red circle", "num_inference_steps": STEPS, "generator": generator, "output_type": "np"}
        return call | dict(self.subject.case.options) | options | dict(self.form.options)

    @property
    def cfg(self) -> Any:
        cfg = dict(self.subject.case.cfg or {})
        return cfg | ({"negative_prompt": "a triangle"} if "negative_prompt" in cfg else {})

    def classic_images(self, *, cfg: bool = False, **options: Any) -> Any:
        call = self.options((self.cfg if cfg else {}) | options)
        pipe = self.subject.pipe
        if not self.form.decodes:
            call["output_type"] = "latent"
        if "num_inference_steps" not in inspect.signature(pipe.__call__).parameters:
            del call["num_inference_steps"]  # it has a count for each size of a pyramid
        is_part = "guider" in call
        with mock.patch.object(pipe, "guider", call.pop("guider")) if is_part else nullcontext():
            return np.asarray(getattr(pipe(**call), self.subject.case.output))

    def images(self, *, cfg: bool = False, **options: Any) -> Any:
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
def modular(request: pytest.FixtureRequest) -> Iterator[Modular]:
    with ExitStack() as stack:
        yield Modular(request.param, FORMS[request.param], stack)


def test_every_modular_pipeline_of_diffusers_is_known() -> None:
    names = {name for name in dir(diffusers) if name.endswith("ModularPipeline")} - {"ModularPipeline"}
    assert names <= KNOWN
    assert names == KNOWN or tiny.MISSING


QUICK_FORMS = ("FluxModularPipeline", "QwenImageModularPipeline", "WanModularPipeline")


@pytest.mark.parametrize("modular", slow_but(QUICK_FORMS, [name for name in FORMS if name in AVAILABLE]), indirect=True)
def test_the_image_is_the_classic_pipelines(modular: Modular) -> None:
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


@pytest.mark.parametrize("name", sorted(AVAILABLE))
def test_the_text_blocks_of_each_pipeline_are_found(name: str) -> None:
    blocks = getattr(diffusers, getattr(diffusers, name).default_blocks_name)()
    found = [type(block).__name__ for block in text_blocks(blocks)]
    assert any("Text" in name or "Tokenize" in name for name in found)
    assert not any("Latents" in name or "Denoise" in name for name in found)


@pytest.mark.parametrize(
    "modular", ["QwenImageModularPipeline", "StableDiffusionXLModularPipeline", "ZImageModularPipeline"], indirect=True
)
def test_cfgs_unconditional_calls_stay_plain(modular: Modular) -> None:
    cfg: dict[str, Any] = {"cfg": True, "negative_prompt": "a triangle"}
    with nag.guide(modular.subject.pipe, NEGATIVE):
        expected = modular.classic_images(**cfg)
    with nag.guide(modular.pipe, NEGATIVE) as guidance:
        guided = modular.images(**cfg)
    assert guidance.guided_steps == STEPS
    assert np.abs(guided - expected).max() < 1e-4


@pytest.mark.parametrize("modular", ["FluxModularPipeline"], indirect=True)
def test_each_image_is_guided_by_the_numbers_of_its_prompt(modular: Modular) -> None:
    numbers: dict[str, Any] = {"scale": [2.0, 9.0], "end": [1.0, 0.4]}
    call: dict[str, Any] = {"prompt": ["a red circle", "a blue triangle"], "num_images_per_prompt": 2}
    with nag.guide(modular.subject.pipe, [NEGATIVE, "red"], **numbers) as guidance:
        expected = modular.classic_images(**call)
    with nag.guide(modular.pipe, [NEGATIVE, "red"], **numbers) as modular_guidance:
        guided = modular.images(**call)
    assert len(guided) == 4
    assert modular_guidance == guidance
    assert np.abs(guided - expected).max() < 1e-4


@pytest.mark.parametrize("modular", ["FluxModularPipeline"], indirect=True)
def test_guidance_ends_where_it_does_in_the_classic_pipeline(modular: Modular) -> None:
    with nag.guide(modular.pipe, NEGATIVE, end=0.4) as guidance:
        modular.images()
    assert (guidance.guided_steps, guidance.plain_steps) == (1, 1)


@pytest.mark.parametrize("modular", ["FluxModularPipeline"], indirect=True)
def test_encoded_prompts_need_an_encoded_negative(modular: Modular) -> None:
    encoder = modular.subject.pipe.encode_prompt
    embeds, pooled, _ = encoder("a red circle", None, max_sequence_length=15)
    negative, _, _ = encoder(NEGATIVE, None, max_sequence_length=15)
    del modular.pipe.blocks.sub_blocks["text_encoder"]
    blocks = modular.pipe.blocks
    del blocks.sub_blocks["text_encoder"]
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: getattr(modular.pipe, name) for name in ("vae", "scheduler", "transformer")})
    with nag.guide(modular.pipe, NEGATIVE):
        expected = modular.images()
    modular.pipe = pipe
    call = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    with nag.guide(pipe, NEGATIVE), pytest.raises(nag.NAGError, match="give negative_prompt_embeds"):
        modular.images(**call)
    with nag.guide(pipe, negative_prompt_embeds=negative):
        guided = modular.images(**call)
    assert np.abs(guided - expected).max() < 1e-4


class CallbackError(Exception):
    pass


@pytest.mark.parametrize("modular", ["FluxModularPipeline", "QwenImageModularPipeline"], indirect=True)
def test_an_exception_leaves_everything_as_it_was(modular: Modular) -> None:
    pipe = modular.pipe
    plain, parts, attributes = modular.images(), dict(pipe.components), dict(vars(pipe))

    def interrupt(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        raise CallbackError

    handle = pipe.transformer.register_forward_hook(interrupt)
    with nag.guide(pipe, NEGATIVE), pytest.raises(CallbackError):
        modular.images()
    handle.remove()
    assert pipe.components == parts
    assert vars(pipe) == attributes
    assert type(pipe) is getattr(diffusers, type(pipe).__name__)
    assert "_nag_attachment" not in vars(pipe.transformer)
    assert (modular.images() == plain).all()


@pytest.mark.parametrize("modular", ["FluxModularPipeline"], indirect=True)
def test_blocks_and_pipelines_that_share_the_denoiser_are_refused(modular: Modular) -> None:
    other = modular.pipe.blocks.init_pipeline()
    other.update_components(**modular.pipe.components)
    for guided, called in ((modular.pipe, other), (modular.subject.pipe, modular.pipe)):
        modular.pipe = called
        with nag.guide(guided, NEGATIVE), pytest.raises(nag.UnsupportedPipeline, match="shares its denoiser"):
            modular.images()


#: Arguments of each guider of diffusers that runs with any model.
LAYERS = LayerSkipConfig([0], fqn="transformer_blocks", skip_attention=False, skip_attention_scores=True, skip_ff=False)
GUIDERS = {
    "AdaptiveProjectedGuidance": {},
    "AdaptiveProjectedMixGuidance": {},
    "AutoGuidance": {"auto_guidance_config": LAYERS},
    "ClassifierFreeGuidance": {},
    "ClassifierFreeZeroStarGuidance": {},
    "MagnitudeAwareGuidance": {},
    "PerturbedAttentionGuidance": {"perturbed_guidance_config": LAYERS, "perturbed_guidance_start": 0.0},
    "SkipLayerGuidance": {"skip_layer_config": LAYERS, "skip_layer_guidance_start": 0.0},
    "SmoothedEnergyGuidance": {"seg_guidance_config": SmoothedEnergyGuidanceConfig([0], fqn="transformer_blocks")},
    "TangentialClassifierFreeGuidance": {},
}


@pytest.mark.parametrize("guider", GUIDERS)
@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_under_any_guider_the_prompts_own_prediction_alone_is_guided(modular: Modular, guider: Any) -> None:
    modular.pipe.update_components(guider=getattr(diffusers.guiders, guider)(**GUIDERS[guider]))
    transformer, calls, conditions = modular.pipe.transformer, [], []

    def record(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        is_guided = vars(transformer)["_nag_attachment"].current.step is not None
        calls.append((is_guided, modular.pipe.guider.num_conditions))

    handle = transformer.transformer_blocks[-1].register_forward_pre_hook(record)
    try:
        with nag.guide(modular.pipe, NEGATIVE) as guidance:
            modular.images()
    finally:
        handle.remove()
    while calls:
        count = calls[0][1]
        assert [is_guided for is_guided, _ in calls[:count]] == [True] + [False] * (count - 1)
        conditions.append(count)
        del calls[:count]
    assert guidance.guided_steps == len(conditions) == STEPS
    assert max(conditions) > 1


class Nameless(ClassifierFreeGuidance):
    _input_predictions: ClassVar = ["first", "second"]


@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_a_guider_that_names_no_conditional_prediction_is_refused(modular: Modular) -> None:
    modular.pipe.update_components(guider=Nameless(3.0))
    with nag.guide(modular.pipe, NEGATIVE), pytest.raises(nag.UnsupportedPipeline, match="Nameless does not name"):
        modular.images()


HAS_GUIDER = [name for name in FORMS if name in AVAILABLE - WITHOUT_GUIDER]


@pytest.mark.parametrize("modular", slow_but(["QwenImageModularPipeline"], HAS_GUIDER), indirect=True)
def test_nagguider_guides_from_the_pipelines_own_negative_prompt(modular: Modular) -> None:
    negative = NEGATIVE if "negative_prompt" in modular.pipe.blocks.input_names else ""
    modular.set_guiders(nag.NAGGuider)
    denoisers, calls = modular.subject.denoisers, []
    handles = [denoiser.register_forward_pre_hook(lambda *call: calls.append(call)) for denoiser in denoisers]
    guided = modular.images(negative_prompt=negative)
    for handle in handles:
        handle.remove()
    assert len(calls) == STEPS
    assert not any("_nag_attachment" in vars(denoiser) for denoiser in denoisers)
    with nag.guide(modular.subject.pipe, negative):
        expected = modular.classic_images()
    assert np.abs(guided - expected.reshape(guided.shape)).max() < 1e-4


@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_nagguider_ends_and_can_be_turned_off(modular: Modular) -> None:
    plain = modular.images()
    modular.set_guiders(partial(nag.NAGGuider, enabled=False))
    assert (modular.images() == plain).all()
    modular.set_guiders(partial(nag.NAGGuider, end=0.0))
    assert (modular.images(negative_prompt=NEGATIVE) == plain).all()
    with nag.guide(modular.subject.pipe, NEGATIVE, scale=9.0, end=0.4) as guidance:
        expected = modular.classic_images()
    modular.set_guiders(nag.NAGGuider, 9.0, None, None, 0.4)
    assert guidance.plain_steps == 1
    assert np.abs(modular.images(negative_prompt=NEGATIVE) - expected).max() < 1e-4


@pytest.mark.parametrize(
    "make_scheduler",
    [diffusers.EDMEulerScheduler, partial(diffusers.HeunDiscreteScheduler, timestep_spacing="trailing")],
    ids=["EDM", "Heun"],
)
@pytest.mark.parametrize("modular", ["StableDiffusionXLModularPipeline"], indirect=True)
def test_nagguiders_end_is_a_share_of_the_schedule_in_any_unit(
    modular: Modular, make_scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler()
    modular.pipe.update_components(scheduler=scheduler)
    monkeypatch.setattr(modular.subject.pipe, "scheduler", scheduler)
    with nag.guide(modular.subject.pipe, NEGATIVE, end=0.5) as guidance:
        expected = modular.classic_images(num_inference_steps=4)
    assert (guidance.guided_steps, guidance.plain_steps) == (2, 2)
    modular.set_guiders(nag.NAGGuider, None, None, None, 0.5)
    guided = modular.images(num_inference_steps=4, negative_prompt=NEGATIVE)
    assert np.abs(guided - expected).max() < 1e-4


@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_after_an_exception_under_nagguider_the_denoiser_is_plain(modular: Modular) -> None:
    plain, transformer = modular.images(), modular.pipe.transformer
    modular.set_guiders(nag.NAGGuider)

    def interrupt(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        raise CallbackError

    handle = transformer.register_forward_hook(interrupt)
    with pytest.raises(CallbackError):
        modular.images(negative_prompt=NEGATIVE)
    handle.remove()
    modular.set_guiders(ClassifierFreeGuidance, 1.0)
    assert (modular.images() == plain).all()
    with nag.guide(modular.pipe, NEGATIVE):
        modular.images()


@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_nagguider_inside_a_guide_is_refused(modular: Modular) -> None:
    modular.set_guiders(nag.NAGGuider)
    with nag.guide(modular.pipe, NEGATIVE), pytest.raises(nag.InvalidParameter, match="use one of the two"):
        modular.images(negative_prompt=NEGATIVE)
    assert "_nag_attachment" not in vars(modular.pipe.transformer)


def test_nagguider_takes_numbers_within_range() -> None:
    with pytest.raises(nag.InvalidParameter, match="scale: must be at least 1"):
        nag.NAGGuider(scale=0.5)


@pytest.mark.parametrize("modular", ["QwenImageModularPipeline"], indirect=True)
def test_nagguider_is_saved_and_loaded_with_the_pipeline(modular: Modular, tmp_path: Path) -> None:
    guider = nag.NAGGuider(scale=7.0, end=0.5)
    guider.save_pretrained(tmp_path / "guider")
    spec = ComponentSpec("guider", nag.NAGGuider, pretrained_model_name_or_path=str(tmp_path), subfolder="guider")
    modular.pipe.update_components(guider=spec.load())
    modular.pipe.save_pretrained(str(tmp_path / "pipe"), overwrite_modular_index=True)
    loaded = diffusers.ModularPipeline.from_pretrained(str(tmp_path / "pipe"))
    loaded.load_components("guider")
    assert isinstance(loaded.guider, nag.NAGGuider)
    assert loaded.guider.config == modular.pipe.guider.config
    assert dict(loaded.guider.config).items() >= {"scale": 7.0, "tau": None, "end": 0.5, "enabled": True}.items()
