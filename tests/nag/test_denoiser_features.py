"""What diffusers can set up on a denoiser, under guidance: it composes, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import FasterCacheConfig, TextKVCacheConfig, apply_group_offloading

import nag
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


@pytest.fixture(params=["flux", "sd"])
def fresh(request: pytest.FixtureRequest) -> Subject:
    return Subject.named(request.param)


def guided(subject: Subject, **numbers: Any) -> Any:
    with nag.guide(subject.pipe, NEGATIVE, **({"scale": 6.0} | numbers)):
        return subject.generate()


def test_group_offload_changes_nothing(fresh: Subject) -> None:
    expected = guided(fresh)
    apply_group_offloading(fresh.denoiser, onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert difference(guided(fresh), expected) < 1e-6


def test_weights_stored_in_eight_bits_are_called_not_read(fresh: Subject) -> None:
    expected, plain = guided(fresh), fresh.generate()
    fresh.denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    cast_plain, cast = fresh.generate(), guided(fresh)
    # Rounding moves both; guidance still takes the same way from one to the other.
    assert difference(cast - cast_plain, expected - plain) < 0.6


def test_weights_quantized_to_int8_by_torchao() -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="installed by `make test-previous`")
    subject = Subject.named("flux")
    expected, plain = guided(subject), subject.generate()
    quantization.quantize_(subject.denoiser, quantization.Int8WeightOnlyConfig())
    quantized_plain, quantized = subject.generate(), guided(subject)
    assert 1e-4 < difference(quantized_plain, plain) < 0.05
    assert difference(quantized - quantized_plain, expected - plain) < 0.2


def test_a_step_cache_starts_anew_when_guidance_ends() -> None:
    """The cache adds what later blocks added at an earlier step; packed and plain sequences differ in length."""
    subject = Subject.named("flux")
    exact = guided(subject, end=0.5)
    subject.denoiser.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    with subject.denoiser.cache_context("cond"):
        assert difference(guided(subject, end=0.5), exact) < 1e-6
    subject.denoiser.disable_cache()
    subject.denoiser.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with (
        subject.denoiser.cache_context("cond"),
        nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5) as guidance,
    ):
        cached = subject.generate()
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert 1e-3 < difference(cached, exact) < 1


@pytest.mark.parametrize(
    ("cache", "reason"), [(TextKVCacheConfig(), "text K/V cache"), (FasterCacheConfig(), "FasterCache")]
)
def test_caches_that_guidance_would_make_wrong_are_refused(cache: Any, reason: str) -> None:
    subject = Subject.named("flux")
    subject.denoiser.enable_cache(cache)
    with pytest.raises(nag.UnsupportedPipeline, match=reason), nag.guide(subject.pipe, NEGATIVE):
        pass


def test_a_unet_that_pools_its_text_is_refused() -> None:
    """It would read the packed prompts as one."""
    subject = Subject.named("sd")
    pooling = {"addition_embed_type": "text", "addition_embed_type_num_heads": 2}
    subject.pipe.unet = type(subject.pipe.unet).from_config(subject.pipe.unet.config, **pooling)
    with pytest.raises(nag.UnsupportedPipeline, match="pools its text"), nag.guide(subject.pipe, NEGATIVE):
        pass
