"""The negative's text keys in cross attention are computed once per row, whichever rows share a call by then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import nag
from nag.text_keys import TextKeyCache
from tests.nag.support import Subject, difference
from tests.nag.test_attachment import row_guidance
from tests.nag.test_joining import TOLERANCE, recorded_calls, tensors_of

#: A UNet, masked text, text with an image's keys ahead of it, a mask for every query, and frames that are rows.
CROSS = ("sd", "sana", "wan", "wan-i2v", "lumina-next", "latte", "animatediff")
#: Rows of three requests that come and go, and whether one of them is new.
GROUPS = ("a", True), ("ab", True), ("ab", False), ("abc", True), ("bc", False), ("cb", False), ("b", False)


@pytest.fixture(scope="module", params=CROSS)
def model(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The denoiser of a small pipeline, and of each of three requests a call with guidance of its own."""
    subject = Subject.named(request.param)
    calls = [call for _, call in recorded_calls(subject, "a red circle")]
    texts = {"a": ("a blue square", 6.0), "b": ("", 3.0), "c": ("a triangle", 4.0)}
    by_name = {}
    for place, (name, (text, scale)) in enumerate(texts.items()):
        guidance = row_guidance(subject, text, scale, 0.5)
        by_name[name] = calls[place % 2], replace(guidance, negative=trimmed(guidance.negative))
    return subject.denoiser, by_name


@pytest.fixture
def requests(model: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same with prompts of the test's own, which nothing else keeps."""
    denoiser, by_name = model
    return denoiser, {
        name: (call, replace(guidance, negative=replace(guidance.negative)))
        for name, (call, guidance) in by_name.items()
    }


def trimmed(negative: Any) -> Any:
    """Without the padding at its end, so that prompts differ in length where a mask allows it."""
    if negative.mask is None:
        return negative
    count = int(negative.mask.bool().any(0).nonzero().max()) + 1
    return replace(negative, embeds=negative.embeds[:, :count], mask=negative.mask[:, :count])


def run(attached: Any, requests: Any, group: Any, **numbers: Any) -> tuple[Any, Any]:
    """The output of each of the group's requests in one joined call, and whether the negative's tokens were packed."""
    calls, guidance = zip(*(requests[name] for name in group), strict=True)
    joined = nag.join(attached.family, calls, [[replace(row, **numbers)] for row in guidance])
    packed = []
    with pytest.MonkeyPatch.context() as patch, attached.rows(joined.rows):
        pack = type(attached.family).pack
        patch.setattr(attached.family, "pack", lambda *args: packed.append(1) or pack(attached.family, *args), False)
        output = attached.denoiser(**joined.arguments)
    return dict(zip(group, joined.split(output), strict=True)), bool(packed)


def alone(denoiser: Any, requests: Any, name: str, **numbers: Any) -> Any:
    with nag.attach(denoiser) as attached:
        return run(attached, requests, name, **numbers)[0][name]


def assert_same(output: Any, expected: Any) -> None:
    for tensor, other in zip(tensors_of(output), tensors_of(expected), strict=True):
        assert difference(tensor, other) < TOLERANCE


@torch.no_grad()
def test_rows_come_and_go(requests: tuple[Any, Any]) -> None:
    denoiser, by_name = requests
    expected = {(name, scale): alone(denoiser, by_name, name, scale=scale) for name in by_name for scale in (2.0, 7.0)}
    with nag.attach(denoiser) as attached:
        for place, (group, is_new) in enumerate(GROUPS):
            scale = (2.0, 7.0)[place % 2]  # at every step another, as `scale_at` of a decaying scale returns
            outputs, packed = run(attached, by_name, group, scale=scale)
            assert packed == is_new
            for name, output in outputs.items():
                assert_same(output, expected[name, scale])


@torch.no_grad()
def test_keys_of_other_weights_are_computed_anew(requests: tuple[Any, Any]) -> None:
    denoiser, by_name = requests
    with nag.attach(denoiser) as attached:
        before, _ = run(attached, by_name, "ab")
        weights = [module.to_k.weight for module in attached.family.attentions(denoiser)]
        for weight in weights:
            weight.mul_(-1)
        after, packed = run(attached, by_name, "ab")
    assert packed
    for name, output in after.items():
        assert difference(*(tensors_of(part)[0] for part in (output, before[name]))) > 1e-4
        assert_same(output, alone(denoiser, by_name, name))
    for weight in weights:
        weight.mul_(-1)


@torch.no_grad()
def test_keys_of_a_call_that_failed_are_not_kept(requests: tuple[Any, Any]) -> None:
    """An engine repeats a call that ran out of memory."""
    denoiser, by_name = requests
    expected = {name: alone(denoiser, by_name, name) for name in "ab"}

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError

    with nag.attach(denoiser) as attached:
        handle = attached.family.attentions(denoiser)[-1].register_forward_pre_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            run(attached, by_name, "ab")
        handle.remove()
        outputs, packed = run(attached, by_name, "ab")
    assert packed
    for name, output in outputs.items():
        assert_same(output, expected[name])


@torch.no_grad()
def test_keys_live_as_long_as_their_prompts(requests: tuple[Any, Any]) -> None:
    denoiser, by_name = requests
    with nag.attach(denoiser) as attached:
        run(attached, by_name, "abc")
        assert len(attached._text_keys._places) == 3
        del by_name["a"]
        assert len(attached._text_keys._places) == 2


def test_of_a_prompts_rows_in_a_call_the_first_ones_keys_are_kept() -> None:
    """The others are plain rows that bear the prompt between guided ones; other adapters may have made their keys."""
    first, second = (nag.NegativeEmbeds(torch.ones(1, 2, 4)) for _ in range(2))
    cache, rows = TextKeyCache(), (first, first, second)
    kept = cache.gather(rows, 1, "weights")
    kept.by_attention[0] = torch.arange(3.0).expand(1, 2, 4, 3).permute(3, 0, 1, 2), torch.zeros(3, 1, 2, 4), None
    cache.keep(rows, kept)
    keys, _, _ = cache.gather((first,), 1, "weights").by_attention[0]
    assert (keys == 0).all()
