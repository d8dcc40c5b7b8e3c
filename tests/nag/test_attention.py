from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName

from nag.attention import AttentionCall, attention_with_lse, merge_by_lse, supports_lse


def draw(length: int, dtype: torch.dtype, seed: int, heads: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, heads, length, 16, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_merging_parts_of_the_keys_is_attention_over_all_of_them(dtype: torch.dtype, tolerance: float) -> None:
    query, key, value = draw(7, dtype, 0), draw(11, dtype, 1), draw(11, dtype, 2)
    parts = [attention_with_lse(query, key[:, :, part], value[:, :, part]) for part in (slice(0, 4), slice(4, 11))]
    whole = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    torch.testing.assert_close(merge_by_lse(*parts[0], *parts[1]).double(), whole, atol=tolerance, rtol=tolerance)


def test_the_log_sum_exp_is_the_softmax_denominators() -> None:
    query, key = draw(7, torch.float64, 0), draw(5, torch.float64, 1)
    _, lse = attention_with_lse(query, key, key)
    expected = torch.einsum("bhtd,bhsd->bhts", query, key).div(4).logsumexp(-1)
    torch.testing.assert_close(lse, expected)


def test_key_heads_may_be_fewer_than_query_heads() -> None:
    query, key, value = draw(7, torch.float64, 0), draw(5, torch.float64, 1, 2), draw(5, torch.float64, 2, 2)
    out, _ = attention_with_lse(query, key, value, scale=0.3)
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_queries_have_no_output(dtype: torch.dtype) -> None:
    query, key = draw(0, dtype, 0), draw(5, dtype, 1)
    (out, lse), (_, other) = (attention_with_lse(states, key, key) for states in (query, draw(3, dtype, 2)))
    assert (out.shape, out.dtype) == (query.shape, dtype)
    assert (lse.shape, lse.dtype) == (query.shape[:3], other.dtype)


def test_where_no_kernel_gives_it_the_caller_is_told() -> None:
    query = draw(7, torch.float16, 0)
    assert not supports_lse(AttentionCall(query, query, query))
    with pytest.raises(NotImplementedError, match="float16"):
        attention_with_lse(query, query, query)


@pytest.mark.parametrize("change", [{"attn_mask": torch.ones(1, 1, 7, 7)}, {"is_causal": True}, {"backend": "native"}])
def test_a_call_that_is_more_than_plain_attention_is_not_merged(change: dict[str, Any]) -> None:
    query = draw(7, torch.float32, 0)
    call = AttentionCall(query, query, query)
    assert supports_lse(call)
    assert not supports_lse(replace(call, **change))


def test_torchs_flash_backend_is_the_kernel_that_returns_it() -> None:
    query, key, value = draw(7, torch.float32, 0), draw(11, torch.float32, 1), draw(11, torch.float32, 2)
    call = AttentionCall(query, key, value, backend=AttentionBackendName._NATIVE_FLASH)
    assert supports_lse(call)
    torch.testing.assert_close(attention_with_lse(query, key, value)[0], call())
