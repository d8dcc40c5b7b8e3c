"""Models that no classic pipeline runs: calls of their denoisers, in the shapes that modular pipelines make them."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import nag
from nag.families import family_of_denoiser
from tests import tiny
from tests.nag import oracle
from tests.nag.support import compile_guided_parts, difference, keep_one_block_of_each_kind
from tests.nag.test_joining import assert_joined_as_alone
from tests.tiers import slow_but
from tests.tiny import DenoiserCall

TOKENS = 9


@pytest.fixture(params=tiny.CALLS, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> DenoiserCall:
    return request.param


def guidance_of(case: DenoiserCall, negative: Any, scales: Any, alpha: float, tau: float) -> list[Any]:
    rows = [case.negative(row[None]) for row in negative]
    return [nag.RowGuidance(row, scale, tau, alpha) for row, scale in zip(rows, scales, strict=True)]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("tokens", slow_but(["7"], [7, TOKENS, 12]))
def test_a_call_is_the_method_written_out_on_two_prompts(case: DenoiserCall, tokens: int) -> None:
    denoiser = case.make(0)
    positive, negative = case.text(case.rows, TOKENS), case.text(case.rows, tokens)
    scales, tau, alpha = torch.tensor([9.0, 3.0])[: case.rows], 1.5, 0.8

    def image_queries(queries: int, keys: int, lane: int) -> slice | None:
        return oracle.image_queries(case.attention, queries, keys, case.text_tokens or (TOKENS, tokens)[lane])

    arguments = case.arguments(positive, TOKENS)
    forward = functools.partial(type(denoiser).forward, denoiser)
    expected = oracle.call(forward, arguments, case.arguments(negative, TOKENS), (scales, tau, alpha), image_queries)
    plain = denoiser(**arguments)
    with (
        nag.attach(denoiser) as attached,
        attached.rows(guidance_of(case, negative, scales.tolist(), alpha, tau)),
    ):
        guided = denoiser(**arguments)
        again = denoiser(**arguments)  # with the keys that the first may have kept
    for output, kept, wanted, before in zip(
        outputs(guided), outputs(again), outputs(expected), outputs(plain), strict=True
    ):
        assert difference(output, wanted) < 1e-5
        assert difference(kept, wanted) < 1e-5
        assert difference(output, before) > 0.01


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_calls_of_two_requests_join_or_say_what_keeps_them_apart(case: Any) -> None:
    denoiser = case.make(0)
    calls = [case.arguments(case.text(1, TOKENS), TOKENS) for _ in range(2)]
    rows = [guidance_of(case, case.text(1, 7), [9.0], 0.8, 1.5), [None]]
    why = family_of_denoiser(denoiser).cannot_join
    if why is None:
        assert_joined_as_alone(denoiser, calls, rows)
        return
    with pytest.raises(nag.CannotJoin, match=why):
        nag.join(denoiser, calls, rows)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["flux3", "minimax-h3"])
def test_a_guided_call_is_one_graph_if_the_table_says_so(name: str) -> None:
    """Wan-Animate 2 is compiled in parts, guided or not."""
    case = tiny.find_call(name)
    denoiser = case.make(0)
    keep_one_block_of_each_kind(denoiser)
    arguments = case.arguments(case.text(1, TOKENS), TOKENS)
    rows = guidance_of(case, case.text(1, 7), [9.0], 0.8, 1.5)
    with nag.attach(denoiser) as attached, attached.rows(rows):
        expected = denoiser(**arguments)
    torch.compiler.reset()
    assert family_of_denoiser(denoiser).compiled == "one graph"
    compile_guided_parts(denoiser)
    with nag.attach(denoiser) as attached, attached.rows(rows):
        compiled = denoiser(**arguments)
    for output, wanted in zip(outputs(compiled), outputs(expected), strict=True):
        assert difference(output, wanted) < 1e-5


def outputs(output: Any) -> list[Any]:
    """What a denoiser predicts, a tensor for each modality."""
    return [torch.stack(list(value)) if isinstance(value, list) else value for value in output.values()]
