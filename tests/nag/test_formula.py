from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nag import normalized_attention_guidance
from nag.formula import orthogonalize


def paper(z_positive: NDArray[Any], z_negative: NDArray[Any], phi: float, tau: float, alpha: float) -> NDArray[Any]:
    """Equations 7 to 10, token by token, in float64 numpy: nothing shared with the library."""
    out = np.empty_like(z_positive, dtype=np.float64)
    for index in np.ndindex(z_positive.shape[:-1]):
        plus, minus = z_positive[index].astype(np.float64), z_negative[index].astype(np.float64)
        extrapolated = (1 + phi) * plus - phi * minus
        ratio = np.abs(extrapolated).sum() / np.abs(plus).sum()
        normalized = min(ratio, tau) / ratio * extrapolated
        out[index] = alpha * normalized + (1 - alpha) * plus
    return out


@pytest.fixture
def z() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 12, generator=generator), torch.randn(2, 5, 12, generator=generator)


@pytest.mark.parametrize(
    ("scale", "tau", "alpha"), [(5.0, 2.5, 0.25), (3.0, 1.0, 0.5), (11.0, 3.5, 1.0), (1.5, 2.0, 0.1)]
)
def test_equals_the_paper(z: tuple[Any, Any], scale: float, tau: float, alpha: float) -> None:
    expected = paper(z[0].numpy(), z[1].numpy(), scale - 1, tau, alpha)
    torch.testing.assert_close(normalized_attention_guidance(*z, scale, tau, alpha), torch.tensor(expected).float())


def test_orthogonalized_leaves_only_what_is_orthogonal_to_z_positive(z: tuple[Any, Any]) -> None:
    positive, negative = z
    part = orthogonalize(positive, negative).double() - positive
    unit = positive.double() / positive.double().norm(dim=-1, keepdim=True)
    expected = negative - (negative * unit).sum(-1, keepdim=True) * unit
    torch.testing.assert_close(part, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(orthogonalize(torch.zeros_like(positive), negative), negative)


def test_scale_one_alpha_zero_and_equal_prompts_return_z_positive_exactly(z: tuple[Any, Any]) -> None:
    positive, negative = z
    assert torch.equal(normalized_attention_guidance(positive, negative, 1.0, 2.5, 0.7), positive)
    assert torch.equal(normalized_attention_guidance(positive, negative, 9.0, 2.5, 0.0), positive)
    assert torch.equal(normalized_attention_guidance(positive, positive, 9.0, 2.5, 0.7), positive)


@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_norm_grows_by_at_most_one_plus_alpha_times_tau_minus_one(
    z: tuple[Any, Any], tau: float, alpha: float
) -> None:
    positive, negative = z
    norm = normalized_attention_guidance(positive, negative, 50.0, tau, alpha).abs().sum(-1)
    assert (norm <= (1 + alpha * (tau - 1)) * positive.abs().sum(-1) * (1 + 1e-5)).all()


def test_rows_take_their_own_numbers(z: tuple[Any, Any]) -> None:
    numbers = [(5.0, 2.5, 0.25), (1.0, 1.0, 0.0)]
    columns = [torch.tensor(column).view(2, 1, 1) for column in zip(*numbers, strict=True)]
    together = normalized_attention_guidance(*z, *columns)
    for row, values in enumerate(numbers):
        assert torch.equal(
            together[row : row + 1], normalized_attention_guidance(z[0][row : row + 1], z[1][row : row + 1], *values)
        )


def test_a_zero_token_stays_finite(z: tuple[Any, Any]) -> None:
    positive, negative = z
    positive[0, 0] = 0
    assert normalized_attention_guidance(positive, negative, 5.0, 2.5, 0.25).isfinite().all()
    negative[0, 0] = 0
    assert (normalized_attention_guidance(positive, negative, 5.0, 2.5, 0.25)[0, 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_activations_do_not_overflow_in_half_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    positive = (torch.randn(1, 4, 3072, generator=generator) * 8000).to(dtype)
    negative = (torch.randn(1, 4, 3072, generator=generator) * 8000).to(dtype)
    out = normalized_attention_guidance(positive, negative, 11.0, 1.0, 0.5)
    assert out.dtype == dtype
    expected = paper(positive.float().numpy(), negative.float().numpy(), 10.0, 1.0, 0.5)
    relative = np.abs(out.float().numpy() - expected).sum() / np.abs(expected).sum()
    assert relative < (1e-3 if dtype == torch.float16 else 1e-2)
