"""Joint attention over packed sequences, against attention written out in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from nag.attention import AttentionCall
from nag.processors.joint import merged_attention, two_call_attention
from nag.token_layout import TokenLayout
from tests.nag.support import difference

LAYOUTS = [TokenLayout(9, 5), TokenLayout(5, 9, text_last=True), TokenLayout(4, 6, shared=3)]
IMAGE = 20


def draw(layout: TokenLayout, key_heads: int = 4, dtype: torch.dtype = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    tokens = layout.shared + layout.text + IMAGE
    return [
        torch.randn(3, h, tokens, 8, generator=generator, dtype=torch.float64).to(dtype)
        for h in (4, key_heads, key_heads)
    ]


def attend(query: torch.Tensor, key: torch.Tensor, value: Any, mask: Any = None) -> Any:
    groups = query.shape[1] // key.shape[1]
    key, value = (t.double().repeat_interleave(groups, 1) for t in (key, value))
    logits = torch.einsum("bhtd,bhsd->bhts", query.double(), key) / query.shape[-1] ** 0.5
    return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1) @ value


def places(layout: TokenLayout) -> Any:
    """Token indices of the shared, positive, negative and image tokens, counted out by hand."""
    order = ["image", "positive", "negative"] if layout.text_last else ["shared", "positive", "negative", "image"]
    counts = {"shared": layout.shared, "positive": layout.positive, "negative": layout.negative, "image": IMAGE}
    ends = list(itertools.accumulate(counts[name] for name in order))
    return {name: list(range(end - counts[name], end)) for name, end in zip(order, ends, strict=True)} | (
        {"shared": []} if layout.text_last else {}
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 3)])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("way", [merged_attention, two_call_attention])
def test_each_token_sees_its_prompt_and_the_image(layout: TokenLayout, rows: Any, key_heads: int, way: Any) -> None:
    query, key, value = draw(layout, key_heads)
    at = places(layout)
    seen = {
        "positive": at["shared"] + at["positive"] + at["image"],
        "negative": at["shared"] + at["negative"] + at["image"],
    }

    def expected(name: str, prompt: str) -> Any:
        return attend(query[:, :, at[name]], key[:, :, seen[prompt]], value[:, :, seen[prompt]])

    call = AttentionCall(query, key, value, enable_gqa=key_heads != 4)
    shared, positive, negative, z_positive, z_negative, z_flipped = way(call, layout, rows)
    torch.testing.assert_close(shared, expected("shared", "positive"))
    torch.testing.assert_close(positive, expected("positive", "positive"))
    torch.testing.assert_close(negative, expected("negative", "negative")[rows])
    torch.testing.assert_close(z_positive, expected("image", "positive"))
    torch.testing.assert_close(z_negative(), expected("image", "negative")[rows])
    flipped = value.clone()
    flipped[:, :, at["negative"]] *= -3
    z = attend(query[:, :, at["image"]], key, flipped)[rows]
    torch.testing.assert_close(z_flipped(lambda values: -3 * values), z)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_text_is_not_seen(layout: TokenLayout) -> None:
    query, key, value = draw(layout)
    at = places(layout)
    mask = torch.ones(3, 1, 1, key.shape[2], dtype=torch.bool)
    mask[1, ..., at["positive"][-2:]] = False
    mask[2, ..., at["negative"][-3:]] = False
    outputs = two_call_attention(AttentionCall(query, key, value, attn_mask=mask), layout, slice(0, 3))
    for prompt, z in (("positive", outputs.z_positive), ("negative", outputs.z_negative())):
        seen = at["shared"] + at[prompt] + at["image"]
        expected = attend(query[:, :, at["image"]], key[:, :, seen], value[:, :, seen], mask[..., seen])
        torch.testing.assert_close(z, expected)


def test_both_ways_agree_in_single_precision() -> None:
    query, key, value = draw(LAYOUTS[0], dtype=torch.float32)
    call = AttentionCall(query, key, value)
    merged, called = (way(call, LAYOUTS[0], slice(0, 3)) for way in (merged_attention, two_call_attention))
    assert difference(merged.positive, called.positive) < 1e-6
    assert difference(merged.negative, called.negative) < 1e-6
    assert difference(merged.z_positive, called.z_positive) < 1e-6
    assert difference(merged.z_negative(), called.z_negative()) < 1e-6
