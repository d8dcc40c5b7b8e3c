"""Which denoiser calls are for the prompt: what the pipeline says by `cache_context`, else what the embeddings tell."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import LayerSkipConfig, SkipLayerGuidance
from diffusers.guiders import guider_utils

import nag
from nag.cache_context import is_conditional_context
from nag.processors import GuidedProcessor
from tests.nag.support import Subject, copy_of, difference, run_in_threads

NEGATIVE = "a blue square"
#: Every name that diffusers' pipelines and guiders give to a call, and whether it is for the prompt itself.
NAMES = {
    "cond": True,
    "uncond": False,
    "cond_uncond": None,
    "uncond_stg": False,
    "uncond_modality": False,
    "pred_cond": True,
    "pred_uncond": False,
    "pred_cond_skip": False,
    "pred_cond_seg": False,
    "pred_cond_stg": False,
    "pred_cond_modality": False,
}


def made(name: str) -> Subject:
    return Subject.named(name)


def test_every_name_that_diffusers_gives_has_a_role() -> None:
    package = Path(diffusers.__file__).parent
    names = set()
    for path in [*(package / "pipelines").rglob("*.py"), *(package / "modular_pipelines").rglob("*.py")]:
        names.update(re.findall(r"cache_context\(\s*\"(\w+)\"", path.read_text()))
    for guider in guider_utils.BaseGuidance.__subclasses__():
        names.update(guider._input_predictions or ())
    assert names <= NAMES.keys()
    assert {"cond", "uncond", "cond_uncond", "pred_cond_skip"} <= names


@pytest.mark.parametrize(("name", "role"), [*NAMES.items(), ("another", None), (None, None)])
def test_a_call_has_the_role_that_its_context_names(flux: Subject, name: str, role: str) -> None:
    with nag.guide(flux.pipe, NEGATIVE):
        assert is_conditional_context() is None
        with flux.denoiser.cache_context(name):
            assert is_conditional_context() is role
        assert is_conditional_context() is None
    assert "cache_context" not in vars(flux.denoiser)


def test_a_context_that_was_shadowed_already_is_put_back(flux: Subject) -> None:
    shadow = flux.denoiser.cache_context
    vars(flux.denoiser)["cache_context"] = shadow
    with nag.guide(flux.pipe, NEGATIVE), flux.denoiser.cache_context("cond"):
        pass
    assert vars(flux.denoiser)["cache_context"] is shadow


def test_one_tensor_as_both_prompts_is_guided_in_the_conditional_call_alone(flux: Subject) -> None:
    given = flux.encode("a red circle")
    positive: dict[str, Any] = {name.removeprefix("negative_"): tensor for name, tensor in given.items()} | {
        "prompt": None
    }
    options: dict[str, Any] = {"seeds": [0], "true_cfg_scale": 3.0}
    with nag.guide(flux.pipe, **flux.encode(NEGATIVE), scale=6.0):
        negative = {name: tensor.clone() for name, tensor in given.items()}
        expected = flux.generate(**positive, **negative, **options)
        assert torch.equal(flux.generate(**positive, **given, **options), expected)


def test_a_pipeline_that_names_both_calls_cond_is_refused_by_name(flux: Subject) -> None:
    with nag.guide(flux.pipe, NEGATIVE) as guidance:
        shadow = flux.denoiser.cache_context
        vars(flux.denoiser)["cache_context"] = lambda name: shadow("cond")
        with pytest.raises(nag.UnsupportedPipeline, match="FluxPipeline calls its denoiser twice in a step"):
            flux.generate(cfg=True)
    assert guidance.guided_steps == 1


@pytest.mark.parametrize("name", ["flux", "wan", "qwen-image"])
def test_calls_by_hand_have_the_roles_that_their_threads_name(name: str) -> None:
    subject = made(name)
    (call, *_), (plain, *_) = subject.calls(num_inference_steps=subject.case.fewest_steps)
    negative = subject.encode(NEGATIVE)
    outputs = {}
    both_inside = threading.Barrier(2, timeout=60)

    @torch.no_grad()
    def run(role: str) -> None:
        with nag.guide(copy_of(subject).pipe, **negative, scale=6.0), subject.denoiser.cache_context(role):
            both_inside.wait()
            outputs[role] = subject.denoiser(**call)[0]
            both_inside.wait()

    run_in_threads(lambda: run("cond"), lambda: run("uncond"))
    assert difference(outputs["uncond"], plain) < 1e-6  # torch shares its work out otherwise in a thread
    assert difference(outputs["cond"], plain) > 1e-3


def test_a_guiders_perturbed_call_stays_plain() -> None:
    subject = made("motif-video")
    subject.pipe.guider = SkipLayerGuidance(
        skip_layer_config=LayerSkipConfig([0], fqn="transformer_blocks"), skip_layer_guidance_stop=1.0
    )
    attention = subject.denoiser.transformer_blocks[0].attn
    is_guided = []

    def record(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        is_guided.append(isinstance(attention.processor, GuidedProcessor))

    with nag.guide(subject.pipe, NEGATIVE, scale=6.0) as guidance:
        handle = subject.denoiser.register_forward_pre_hook(record)
        subject.generate(num_inference_steps=2)
        handle.remove()
    # The prompt's call, CFG's, and from the second step on the one without a layer.
    assert is_guided == [True, False, True, False, False]
    assert guidance.guided_steps == 2
