"""Z-Image's rows: texts filled up to multiples of 32, CFG's conditional rows first, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from tests.nag.support import STEPS, Subject, difference

LONG = " ".join(["a small blue square on a white background"] * 5)


@pytest.fixture
def subject() -> Subject:
    return Subject.named("z-image")


@pytest.mark.parametrize(("prompt", "negative"), [("a red circle", LONG), (LONG, "a red circle")])
def test_texts_of_several_lengths_ride_together(subject: Subject, prompt: str, negative: Any) -> None:
    with nag.guide(subject.pipe, [negative, "a triangle"], scale=9.0):
        both = subject.generate([prompt, "a"])
    with nag.guide(subject.pipe, negative, scale=9.0):
        assert difference(subject.generate([prompt])[0], both[0]) < 1e-5
    with nag.guide(subject.pipe, "a triangle", scale=9.0):
        assert difference(subject.generate(["a"], seeds=[1])[0], both[1]) < 1e-5


def test_a_long_prompt_as_its_own_negative_changes_nothing(subject: Subject) -> None:
    with nag.guide(subject.pipe, LONG, scale=9.0, alpha=0.8):
        guided = subject.generate([LONG, LONG])
    assert difference(guided, subject.generate([LONG, LONG])) < 1e-6


def test_a_run_may_leave_cfg(subject: Subject) -> None:
    with nag.guide(subject.pipe, "a blue square", scale=9.0) as guidance:
        guided = subject.generate(["a red circle", "a"], cfg=True, cfg_truncation=0.4, num_images_per_prompt=2)
    assert guidance.guided_steps == STEPS
    with nag.guide(subject.pipe, "a blue square", scale=9.0):
        alone = subject.generate(["a"], cfg=True, cfg_truncation=0.4, seeds=[2])
    assert difference(alone[0], guided[2]) < 1e-5


@pytest.mark.parametrize("cfg", [False, True])
def test_prompts_given_as_embeddings_are_of_a_new_call_each_time(subject: Subject, cfg: bool) -> None:
    """Nothing is encoded or checked then, so that the call alone tells the next one from this."""
    pipe = subject.pipe
    of_prompts, of_other = pipe.encode_prompt(["a red circle", "a"], negative_prompt=["a triangle", "a triangle"])
    options = {"num_inference_steps": STEPS, "output_type": "latent"} | dict(subject.case.options)
    if cfg:
        options |= subject.case.cfg or {}

    def generate(rows: Any, seed: int = 0) -> Any:
        generators = [torch.Generator().manual_seed(seed + row) for row in range(len(rows))]
        return pipe(
            prompt_embeds=[of_prompts[row] for row in rows],
            negative_prompt_embeds=[of_other[row] for row in rows],
            generator=generators,
            **options,
        ).images

    with torch.no_grad():
        negative = subject.encode("a blue square")
    with nag.guide(pipe, **negative, scale=9.0) as guidance:
        both, first, again = generate([0, 1]), generate([0]), generate([1], seed=1)
    assert guidance.guided_steps == 3 * STEPS
    assert difference(both[0], first[0]) < 1e-5
    assert difference(both[1], again[0]) < 1e-5
    with nag.guide(pipe, "a blue square", scale=9.0):
        assert difference(subject.generate("a red circle", cfg=cfg, negative_prompt="a triangle"), first) < 1e-5


def test_controlnet_is_refused(subject: Subject) -> None:
    subject.pipe.controlnet = object()
    with pytest.raises(nag.UnsupportedPipeline, match="ControlNet"), nag.guide(subject.pipe, "a"):
        pass


def test_omni_is_refused(subject: Subject) -> None:
    class ZImageOmniPipeline(type(subject.pipe)):  # type: ignore[misc]
        pass

    subject.pipe.__class__ = ZImageOmniPipeline
    with pytest.raises(nag.UnsupportedPipeline, match="in parts"), nag.guide(subject.pipe, "a"):
        pass
