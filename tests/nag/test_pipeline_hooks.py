"""Pipelines set up in ways that users have: what is guided as ever, and what is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig

import nag
from tests.nag.support import STEPS, Subject

NEGATIVE = "a blue square"


def made(name: str) -> Subject:
    return Subject.named(name)


@pytest.mark.parametrize("name", ["flux", "sd", "wan"])
def test_without_a_text_encoder_embeddings_are_asked_for(name: str) -> None:
    subject = made(name)
    arguments = {"prompt": None, **prompt_embeds(subject)}
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0):
        guided = subject.generate(seeds=[0], **arguments)
    given = subject.encode(NEGATIVE)
    missing = [part for part in subject.pipe.components if part.startswith(("text_encoder", "tokenizer"))]
    for part in missing:
        setattr(subject.pipe, part, None)
    with (
        nag.guide(subject.pipe, NEGATIVE, scale=6.0),
        pytest.raises(nag.InvalidParameter, match=r"no text_encoder.*give negative_prompt_embeds"),
    ):
        subject.generate(seeds=[0], **arguments)
    with nag.guide(subject.pipe, scale=6.0, **given):
        assert torch.equal(subject.generate(seeds=[0], **arguments), guided)


def test_a_negative_of_another_width_is_refused(flux: Subject) -> None:
    embeds = flux.encode(NEGATIVE)["negative_prompt_embeds"]
    with (
        nag.guide(flux.pipe, negative_prompt_embeds=embeds[..., :-4]),
        pytest.raises(nag.InvalidParameter, match=f"has {embeds.shape[-1] - 4} channels, and the prompt"),
    ):
        flux.generate()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda embeds: embeds[:, :0], "none of them 0"),
        (lambda embeds: embeds[0], "must be .prompts, tokens, channels."),
        (lambda embeds: embeds * math.nan, "not finite"),
        (lambda embeds: embeds.long(), "floating point"),
    ],
)
@pytest.mark.parametrize("name", ["flux", "sd", "hunyuan-video"])
def test_embeddings_that_would_guide_to_no_number_are_refused(
    name: str, change: Callable[..., Any], reason: str
) -> None:
    subject = made(name)
    given = subject.encode(NEGATIVE)
    given["negative_prompt_embeds"] = change(given["negative_prompt_embeds"])
    with pytest.raises(nag.InvalidParameter, match=reason), nag.guide(subject.pipe, **given):
        pass


def test_a_mask_without_a_token_is_refused() -> None:
    subject = made("hunyuan-video")
    given = subject.encode(NEGATIVE)
    given["negative_prompt_attention_mask"] = given["negative_prompt_attention_mask"] * 0
    with pytest.raises(nag.InvalidParameter, match="at least one token"), nag.guide(subject.pipe, **given):
        pass


def test_another_pipeline_on_the_same_denoiser_is_refused_by_name() -> None:
    subject = made("sd")
    refiner = diffusers.StableDiffusionImg2ImgPipeline(**subject.pipe.components)
    with nag.guide(subject.pipe, **subject.encode(NEGATIVE), scale=9.0):
        with pytest.raises(nag.UnsupportedPipeline, match="StableDiffusionImg2ImgPipeline was called inside the guide"):
            refiner("a red circle", image=torch.zeros(1, 3, 16, 16), num_inference_steps=4)
        subject.generate()
    with nag.guide(refiner, NEGATIVE) as guidance:
        refiner("a red circle", image=torch.zeros(1, 3, 16, 16), num_inference_steps=4)
    assert guidance.guided_steps > 0


@pytest.mark.filterwarnings("ignore:__array_")
@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EDMEulerScheduler(),
        diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
        diffusers.IPNDMScheduler(),
        diffusers.DDIMScheduler(timestep_spacing="trailing"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_end_is_a_share_of_the_schedule_in_any_unit(scheduler: Any) -> None:
    subject = made("sd")
    subject.pipe.scheduler = scheduler
    with nag.guide(subject.pipe, NEGATIVE, end=0.5) as guidance:
        subject.generate(num_inference_steps=8)
    assert (guidance.guided_steps, guidance.plain_steps) == (4, 4)


# diffusers takes a NumPy array from a tensor in the way of NumPy 1.
@pytest.mark.filterwarnings("ignore:__array_")
@pytest.mark.parametrize("kind", [diffusers.HeunDiscreteScheduler, diffusers.KDPM2DiscreteScheduler])
def test_a_step_of_two_denoiser_calls_is_one_step(kind: Any) -> None:
    subject = made("sd")
    subject.pipe.scheduler = kind.from_config(subject.pipe.scheduler.config, timestep_spacing="trailing")
    guided = []
    with nag.guide(subject.pipe, NEGATIVE, end=0.5) as guidance:
        handle = subject.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: guided.append(kwargs["encoder_hidden_states"].shape[1]), with_kwargs=True
        )
        subject.generate(num_inference_steps=8)
        handle.remove()
    assert (guidance.guided_steps, guidance.plain_steps) == (4, 4)
    # The last step has no second call.
    assert len(guided) == 15


def test_a_wrapped_forward_is_called_by_the_names_of_its_class() -> None:
    subject = made("sd")
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0):
        expected = subject.generate()
    forward = subject.denoiser.forward
    subject.denoiser.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0) as guidance:
        assert torch.equal(subject.generate(), expected)
    assert guidance.guided_steps == STEPS


def test_pyramid_attention_broadcast_is_refused_between_the_calls_of_cfg(flux: Subject) -> None:
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_block_identifiers=("transformer_blocks",),
        current_timestep_callback=lambda: 500,
    )
    flux.denoiser.enable_cache(config)
    with nag.guide(flux.pipe, NEGATIVE, scale=6.0) as guidance:
        assert torch.isfinite(flux.generate()).all()
        with pytest.raises(nag.UnsupportedPipeline, match="PyramidAttentionBroadcast shares"):
            flux.generate(cfg=True)
    assert guidance.guided_steps > 0
    flux.denoiser.disable_cache()


def prompt_embeds(subject: Subject) -> dict[str, Any]:
    """The prompt "a red circle" as its pipeline takes it encoded."""
    given = {name.removeprefix("negative_"): value for name, value in subject.encode("a red circle").items()}
    return {name: value for name, value in given.items() if not name.endswith("mask")}
