from __future__ import annotations

import pytest
from diffusers.models.attention_processor import AttnProcessor

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


@pytest.fixture(params=["sd", "sdxl"])
def unet(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


def test_there_is_no_reference_layout_to_ask_for(unet: Subject) -> None:
    with pytest.raises(nag.InvalidParameter, match="reference"), nag.guide(unet.pipe, NEGATIVE, reference=True):
        pass


def test_defaults_are_the_papers(unet: Subject) -> None:
    alpha = 0.5 if unet.case.name == "sdxl" else 0.375
    assert nag.defaults_for(unet.pipe) == nag.NAGParams(scale=3.0, tau=2.5, alpha=alpha)


@pytest.mark.parametrize("way", ["plain", "sliced", "fused"])
def test_however_the_attention_was_computed_the_picture_is_the_same(unet: Subject, way: str) -> None:
    with nag.guide(unet.pipe, NEGATIVE):
        expected = unet.generate()
    if way == "plain":
        unet.pipe.unet.set_attn_processor(AttnProcessor())
    elif way == "sliced":
        unet.pipe.unet.set_attention_slice("max")
    else:
        unet.pipe.unet.fuse_qkv_projections()
    with nag.guide(unet.pipe, NEGATIVE):
        assert difference(unet.generate(), expected) < 1e-5
