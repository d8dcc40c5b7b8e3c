"""What holds for every family and form of it, through the real pipeline class.

What depends on the guidance of rows alone and not on a pipeline is tested for one case of each layout (test_guide.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from nag.families import family_of
from tests.nag import oracle
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


def test_text_and_embeddings_guide_alike(subject: Subject) -> None:
    steps = subject.case.fewest_steps
    with nag.guide(subject.pipe, NEGATIVE) as guidance:
        by_text = subject.generate(num_inference_steps=steps)
    assert guidance.guided_steps == steps * subject.case.sections
    assert guidance.params == (nag.defaults_for(subject.pipe),)
    with nag.guide(subject.pipe, **subject.encode(NEGATIVE)):
        assert torch.equal(subject.generate(num_inference_steps=steps), by_text)


def test_a_row_is_the_same_alone_and_in_a_batch_with_negatives_of_other_lengths(subject: Subject) -> None:
    if subject.case.takes == "one prompt":
        pytest.skip("these pipelines take one prompt a call")
    prompts, scales, alphas = ["a red circle", subject.case.beside], [4.0, 6.0], [0.5, 0.9]
    negatives, steps = ["", "a small blue square on a white background"], subject.case.fewest_steps
    with nag.guide(subject.pipe, negatives, scale=scales, alpha=alphas):
        together = subject.generate(prompts, seeds=[5, 6], num_inference_steps=steps)
    for row in range(2):
        with nag.guide(subject.pipe, negatives[row], scale=scales[row], alpha=alphas[row]):
            alone = subject.generate(prompts[row], seeds=[5 + row], num_inference_steps=steps)
        assert difference(together[row], alone[0]) < 1e-5


def test_several_images_a_prompt_take_their_prompts_negative(subject: Subject) -> None:
    if subject.case.takes != "prompts":
        pytest.skip("these pipelines make one image a prompt")
    steps = subject.case.fewest_steps
    with nag.guide(subject.pipe, [NEGATIVE, "a triangle"], scale=[3.0, 6.0]):
        # Of one length: SANA's pipelines hand a prompt's second image the mask of the next prompt.
        four = subject.generate(["a red circle", "a green shape"], num_images_per_prompt=2, num_inference_steps=steps)
    with nag.guide(subject.pipe, "a triangle", scale=6.0):
        third = subject.generate("a green shape", seeds=[2], num_inference_steps=steps)
    assert difference(third[0], four[2]) < 1e-5


def test_guidance_ends_by_the_timestep_within_a_run(subject: Subject) -> None:
    seen = []

    def record(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        seen.append(subject.case.timestep(float(torch.as_tensor(timestep).max())))
        return kwargs

    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, end=0.5) as guidance:
        subject.generate(callback_on_step_end=record, num_inference_steps=4)
    assert guidance.guided_steps == sum(timestep >= 500 for timestep in seen) > 0
    assert guidance.plain_steps == sum(timestep < 500 for timestep in seen) > 0


def test_it_is_the_method_written_out_on_two_prompts(subject: Subject) -> None:
    several = subject.case.takes != "one prompt"
    prompts = ["a red circle", "a green shape"] if several else "a red circle"
    other = "a green square" if subject.case.one_length else "a triangle"
    negatives = [NEGATIVE, other] if several else NEGATIVE
    # Numbers of which each counts: τ clamps some tokens and leaves others.
    expected = oracle.generate(subject, prompts, negatives, 9.0, 1.5, 0.7)
    with nag.guide(subject.pipe, negatives, scale=9.0, tau=1.5, alpha=0.7):
        guided = subject.generate(prompts)
    assert difference(guided, expected) < 1e-5
    assert difference(guided, subject.generate(prompts)) > 0.01


def test_under_cfg_the_unconditional_rows_stay_plain(subject: Subject) -> None:
    """Through the denoiser of one CFG step: what is not the prompt's own differs in nothing from a plain run.

    CFG runs at a scale just above the greatest at which the family says that it is off.
    """
    if subject.case.cfg is None:
        pytest.skip("these pipelines run no CFG")
    prompts = "a red circle" if subject.case.takes == "one prompt" else ["a red circle", "a green shape"]
    options = {name: family_of(subject.pipe).cfg_off + 0.5 for name in names_of_cfg_scale(subject)}
    plain = subject.calls_of_a_step(prompts, cfg=True, **options)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0) as guidance:
        guided = subject.calls_of_a_step(prompts, cfg=True, **options)
    assert guidance.guided_steps == subject.case.fewest_steps
    changed = [
        [difference(a, b) > 1e-3 for a, b in zip(after, before, strict=True)]
        for after, before in zip(guided, plain, strict=True)
    ]
    same = [
        [difference(a, b) < 1e-6 for a, b in zip(after, before, strict=True)]
        for after, before in zip(guided, plain, strict=True)
    ]
    expected = list(subject.case.conditional_rows)
    assert [c for call in changed for c in call] == expected
    assert [not c for call in same for c in call] == expected


def test_cfg_is_off_at_the_scale_that_the_family_names(subject: Subject) -> None:
    names = names_of_cfg_scale(subject)
    if not names:
        pytest.skip("these pipelines take no scale of CFG, or one of perturbed attention beside it")
    prompts = "a red circle" if subject.case.takes == "one prompt" else ["a red circle", "a green shape"]
    options = dict.fromkeys(names, family_of(subject.pipe).cfg_off)
    rows = sum(map(len, subject.calls_of_a_step(prompts, cfg=True, **options)))
    assert rows < len(subject.case.conditional_rows)


def names_of_cfg_scale(subject: Subject) -> Any:
    """The pipeline's argument for the scale of CFG, if it is no part of the pipeline and has no other beside it."""
    cfg = subject.case.cfg or {}
    names = [name for name in ("true_cfg_scale", "guidance_scale") if name in cfg]
    return [] if "pag_scale" in cfg else names[:1]
