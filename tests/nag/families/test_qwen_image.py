"""Qwen-Image with reference images: they are image tokens, whatever the prompts' lengths."""

import sys
from functools import partial

import pytest
import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline, QwenImageLayeredPipeline
from PIL import Image

import nag
from tests.nag import oracle
from tests.nag.support import STEPS, Subject, difference
from tests.tiny import Case
from tests.tiny.qwen_image import qwen_image

NEGATIVE = "a blue square"
PICTURE = Image.new("RGB", (24, 16), (200, 40, 40))


class TextAlone:
    """Stands for the reader of text and picture, and reads the text: what it sees of a picture is its own affair."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text, images, padding, return_tensors):
        return self.tokenizer(text, padding=padding, return_tensors=return_tensors)


def apart(a, b):
    return difference(a[0], b[0])  # the first picture, which may be several layers


def reader(tokenizer):
    return {"processor": TextAlone(tokenizer)}


FORMS = {
    "edit": (QwenImageEditPipeline, {}, {"image": PICTURE}),
    "edit-plus": (QwenImageEditPlusPipeline, {"zero_cond_t": True}, {"image": [PICTURE, PICTURE]}),
    "layered": (
        QwenImageLayeredPipeline,
        {"use_layer3d_rope": True, "use_additional_t_cond": True},
        {"image": PICTURE, "layers": 2, "output_type": "pt"},  # it has no output of latents
    ),
}


@pytest.fixture(params=FORMS)
def subject(request, monkeypatch):
    kind, config, options = FORMS[request.param]
    exact = (24, 16, None) if kind is QwenImageEditPipeline else (24, 16)
    monkeypatch.setattr(sys.modules[kind.__module__], "calculate_dimensions", lambda area, ratio: exact)
    case = Case(
        request.param,
        partial(qwen_image, kind=kind, config=config, parts=reader),
        options=options | {"true_cfg_scale": 1.0},
        cfg={"true_cfg_scale": 3.0, "negative_prompt": "a triangle"},
        text=("encoder_hidden_states", "encoder_hidden_states_mask"),
        attention="text_first",
        takes="one prompt",
    )
    return Subject(case)


def test_it_is_the_method_written_out_on_two_prompts(subject):
    expected = oracle.generate(subject, "a red circle", NEGATIVE, 12.0, 1.2, 1.0)
    plain = subject.generate()
    with nag.guide(subject.pipe, NEGATIVE, scale=12.0, tau=1.2, alpha=1.0) as guidance:
        guided = subject.generate()
    assert guidance.guided_steps == STEPS
    assert apart(guided, expected) < 1e-5
    assert apart(guided, plain) > 0.01
    assert apart(subject.generate(), plain) == 0


def test_a_padded_negative_is_the_negative(subject):
    given = subject.encode("a")["negative_prompt_embeds"]
    padded = torch.cat([given, torch.randn(1, 4, given.shape[-1])], dim=1)
    mask = (torch.arange(padded.shape[1]) < given.shape[1])[None]
    with nag.guide(subject.pipe, negative_prompt_embeds=given, scale=9.0):
        expected = subject.generate()
    with nag.guide(subject.pipe, negative_prompt_embeds=padded, negative_prompt_embeds_mask=mask, scale=9.0):
        assert apart(subject.generate(), expected) < 1e-5


def test_the_unconditional_call_stays_plain(subject):
    _, plain = subject.calls(cfg=True, num_inference_steps=1)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        _, guided = subject.calls(cfg=True, num_inference_steps=1)
    assert difference(guided[0], plain[0]) > 1e-3
    assert difference(guided[1], plain[1]) < 1e-6
