from __future__ import annotations

from types import SimpleNamespace

import diffusers
import pytest

import nag


@pytest.mark.parametrize(
    ("denoiser", "family", "why"),
    [
        ("DreamLiteUNetModel", "DreamLite", "rows of one call"),
        ("GlmImageTransformer2DModel", "GLM-Image", "in quotes"),
        ("MiniMaxMusic3Transformer1DModel", "MiniMax-Music 3", "no attention reads"),
        ("OmniGenTransformer2DModel", "OmniGen", "one causal sequence"),
    ],
)
def test_these_are_refused_by_name_with_the_reason(denoiser: str, family: str, why: str) -> None:
    kind = getattr(diffusers, denoiser, None)
    if kind is None:
        pytest.skip("this release of diffusers has no such model")
    pipe = SimpleNamespace(
        transformer=kind.__new__(kind), encode_prompt=lambda prompt: None, scheduler=SimpleNamespace(config={})
    )
    assert not nag.supports(pipe)
    with pytest.raises(nag.UnsupportedPipeline, match=rf"{family} cannot be guided: .*{why}"), nag.guide(pipe, "a"):
        pass
