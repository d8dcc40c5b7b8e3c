"""Z-Image's rows: texts filled up to multiples of 32, CFG's conditional rows first, what is refused."""

import pytest

import nag
from tests import tiny
from tests.nag.support import STEPS, Subject, difference

LONG = " ".join(["a small blue square on a white background"] * 5)


@pytest.fixture
def subject():
    return Subject(next(case for case in tiny.CASES if case.name == "z-image"))


@pytest.mark.parametrize(("prompt", "negative"), [("a red circle", LONG), (LONG, "a red circle")])
def test_texts_of_several_lengths_ride_together(subject, prompt, negative):
    with nag.guide(subject.pipe, [negative, "a triangle"], scale=9.0):
        both = subject.generate([prompt, "a"])
    with nag.guide(subject.pipe, negative, scale=9.0):
        assert difference(subject.generate([prompt])[0], both[0]) < 1e-5
    with nag.guide(subject.pipe, "a triangle", scale=9.0):
        assert difference(subject.generate(["a"], seeds=[1])[0], both[1]) < 1e-5


def test_a_long_prompt_as_its_own_negative_changes_nothing(subject):
    with nag.guide(subject.pipe, LONG, scale=9.0, alpha=0.8):
        guided = subject.generate([LONG, LONG])
    assert difference(guided, subject.generate([LONG, LONG])) < 1e-6


def test_a_run_may_leave_cfg(subject):
    with nag.guide(subject.pipe, "a blue square", scale=9.0) as guidance:
        guided = subject.generate(["a red circle", "a"], cfg=True, cfg_truncation=0.4, num_images_per_prompt=2)
    assert guidance.guided_steps == STEPS
    with nag.guide(subject.pipe, "a blue square", scale=9.0):
        alone = subject.generate(["a"], cfg=True, cfg_truncation=0.4, seeds=[2])
    assert difference(alone[0], guided[2]) < 1e-5


def test_controlnet_is_refused(subject):
    subject.pipe.controlnet = object()
    with pytest.raises(nag.UnsupportedPipeline, match="ControlNet"), nag.guide(subject.pipe, "a"):
        pass


def test_omni_is_refused(subject):
    class ZImageOmniPipeline(type(subject.pipe)):
        pass

    subject.pipe.__class__ = ZImageOmniPipeline
    with pytest.raises(nag.UnsupportedPipeline, match="in parts"), nag.guide(subject.pipe, "a"):
        pass
