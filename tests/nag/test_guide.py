"""How a guide is entered, runs and is left, on one pipeline of each layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from tests.nag.support import Subject, difference
from tests.tiers import slow_but

NEGATIVE = "a blue square"
LONG = "a small blue square on a white background"


@pytest.mark.parametrize("numbers", [{"scale": 1.0}, {"alpha": 0.0}, {"end": 0.0}])
def test_numbers_that_guide_nothing_leave_the_picture_alone(layout: Subject, numbers: dict[str, Any]) -> None:
    plain = layout.generate()
    with nag.guide(layout.pipe, NEGATIVE, **numbers) as guidance:
        assert torch.equal(layout.generate(), plain)
    assert (guidance.guided_steps, guidance.plain_steps) == (0, layout.steps)


def test_the_prompt_as_its_own_negative_changes_nothing(layout: Subject) -> None:
    with nag.guide(layout.pipe, "a red circle", scale=9.0, alpha=0.8):
        guided = layout.generate()
    assert difference(guided, layout.generate()) < 1e-6


@pytest.mark.parametrize("negative", slow_but([LONG], ["", "a", LONG]))
def test_a_row_is_the_same_alone_and_in_a_batch_whatever_rides_beside_it(layout: Subject, negative: str) -> None:
    prompts, scales, alphas = ["a red circle", "a green shape", layout.case.beside], [4.0, 1.0, 6.0], [0.5, 0.5, 0.9]
    negatives = [negative, NEGATIVE, "a triangle"]
    with nag.guide(layout.pipe, negatives, scale=scales, alpha=alphas):
        together = layout.generate(prompts, seeds=[5, 6, 7])
    for row in range(3):
        with nag.guide(layout.pipe, negatives[row], scale=scales[row], alpha=alphas[row]):
            alone = layout.generate(prompts[row], seeds=[5 + row])
        assert difference(together[row], alone[0]) < 1e-5
    order = [2, 0, 1]
    with nag.guide(
        layout.pipe, [negatives[i] for i in order], scale=[scales[i] for i in order], alpha=[alphas[i] for i in order]
    ):
        permuted = layout.generate([prompts[i] for i in order], seeds=[5 + i for i in order])
    assert difference(permuted, together[order]) < 1e-5


def test_rows_may_end_apart(layout: Subject) -> None:
    with nag.guide(layout.pipe, NEGATIVE, end=[0.25, 1.0], scale_decay=[0.0, 1.0]):
        both = layout.generate(["a red circle", layout.case.beside])
    for row, (prompt, end) in enumerate([("a red circle", 0.25), (layout.case.beside, 1.0)]):
        with nag.guide(layout.pipe, NEGATIVE, end=end, scale_decay=row):
            assert difference(layout.generate(prompt, seeds=[row])[0], both[row]) < 1e-5


def test_everything_is_put_back_after_an_exception(layout: Subject) -> None:
    before, plain = layout.processors, layout.generate()

    def stop(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), nag.guide(layout.pipe, NEGATIVE):
        layout.generate(callback_on_step_end=stop)
    assert layout.processors == before
    assert "encode_prompt" not in vars(layout.pipe)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in layout.denoiser.modules())
    assert torch.equal(layout.generate(), plain)


def test_a_call_after_an_interrupted_one_inside_the_same_guide_is_guided(layout: Subject) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    attention = next(module for module in layout.denoiser.modules() if hasattr(module, "processor"))
    with nag.guide(layout.pipe, NEGATIVE):
        first = layout.generate()
        handle = attention.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            layout.generate()
        handle.remove()
        assert torch.equal(layout.generate(), first)


def test_a_guided_pipeline_is_not_guided_twice(layout: Subject) -> None:
    with (
        nag.guide(layout.pipe, NEGATIVE),
        pytest.raises(nag.InvalidParameter, match="guided already"),
        nag.guide(layout.pipe, "a"),
    ):
        pass
    with nag.guide(layout.pipe, NEGATIVE):
        layout.generate()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"negative_prompt": ["a", "b", "c"]}, "negative_prompt"),
        ({"negative_prompt": "a", "scale": [2.0, 3.0, 4.0]}, "scale"),
    ],
)
def test_values_that_are_not_one_a_prompt_are_refused(layout: Subject, arguments: dict[str, Any], name: str) -> None:
    with nag.guide(layout.pipe, **arguments), pytest.raises(nag.InvalidParameter, match=name):
        layout.generate(["a red circle", "a"])


@pytest.mark.parametrize(
    "arguments", [{}, {"negative_prompt": []}, {"negative_prompt": [1]}, {"negative_prompt": "a", "scale": 0.5}]
)
def test_wrong_arguments_are_refused_at_the_door(flux: Subject, arguments: dict[str, Any]) -> None:
    with pytest.raises(nag.InvalidParameter), nag.guide(flux.pipe, **arguments):
        pass


def test_a_pipeline_of_no_family_is_refused() -> None:
    assert not nag.supports(object())
    with pytest.raises(nag.UnsupportedPipeline, match="object"), nag.guide(object(), "a"):
        pass


def test_a_denoiser_called_by_hand_needs_embeddings(layout: Subject) -> None:
    denoiser = layout.denoiser
    calls = []
    handle = denoiser.register_forward_pre_hook(lambda m, a, k: calls.append((a, k)), with_kwargs=True)
    layout.generate(num_inference_steps=layout.case.fewest_steps)
    handle.remove()
    with torch.no_grad(), nag.guide(layout.pipe, "a"), pytest.raises(nag.NAGError, match="negative_prompt_embeds"):
        denoiser(*calls[0][0], **calls[0][1])


@pytest.mark.parametrize("name", ["flux", "sd", "wan"])
def test_a_pipeline_that_has_nothing_to_encode_is_guided_the_same(name: str) -> None:
    """Some pipelines leave encode_prompt out where they are given embeddings; CFG's rows are told all the same."""
    subject = Subject.named(name)
    encode, results = subject.pipe.encode_prompt, []
    subject.pipe.encode_prompt = lambda *args, **kwargs: results.append(encode(*args, **kwargs)) or results[-1]
    subject.generate(cfg=True)
    del subject.pipe.encode_prompt
    with nag.guide(subject.pipe, **(negative := subject.encode(NEGATIVE))):
        expected = subject.generate(cfg=True)
    with nag.guide(subject.pipe, **negative):
        replay = iter(results)
        subject.pipe.encode_prompt = lambda *args, **kwargs: next(replay)
        assert torch.equal(subject.generate(cfg=True), expected)
    assert difference(subject.generate(cfg=True), expected) > 1e-3
