from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21FlexAttnProcessor

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a small blue square"


@pytest.fixture(params=["qwen21", "qwen21-picture"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


@pytest.mark.parametrize("end", [0.5, 1.0])
@pytest.mark.parametrize("negative", ["a", NEGATIVE])
def test_kept_keys_give_what_keys_made_anew_at_every_step_give(subject: Subject, negative: Any, end: float) -> None:
    with nag.guide(subject.pipe, negative, scale=9.0, end=end):
        kept, anew = (subject.generate(use_kv_cache=keep) for keep in (True, False))
    assert difference(kept, anew) < 1e-5


def test_after_guidance_the_denoiser_sees_the_prompt_alone(subject: Subject) -> None:
    """A run whose last step alone is plain: that step equals an unguided one from the same latents."""
    outputs, latents = [], []
    handles = [
        subject.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: latents.append(kwargs["hidden_states"]), with_kwargs=True
        ),
        subject.denoiser.register_forward_hook(lambda module, args, output: outputs.append(output[0])),
    ]
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, end=0.5):
        subject.generate()
    call = subject.calls()[0][-1] | {"hidden_states": latents[3], "kv_cache": None, "kv_cache_mode": None}
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        alone = subject.denoiser(**call)[0]
    image = outputs[3].shape[1]
    assert difference(outputs[3], alone[:, -image:]) < 1e-5


def test_a_negative_of_another_length_leaves_the_image_where_it_stands(subject: Subject) -> None:
    with nag.guide(subject.pipe, NEGATIVE, scale=1.0 + 1e-6):
        guided = subject.generate()
    assert difference(guided, subject.generate()) < 1e-5


def test_the_flex_processor_is_refused(subject: Subject) -> None:
    subject.denoiser.set_attn_processor(QwenImage21FlexAttnProcessor())
    with pytest.raises(nag.UnsupportedPipeline, match="QwenImage21FlexAttnProcessor"), nag.guide(subject.pipe, "a"):
        pass
