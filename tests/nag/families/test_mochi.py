"""Mochi's attention is one call a row; the oracle's is one for all."""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

import nag
from tests.nag.support import Subject, difference


def test_the_oracles_attention_is_the_models() -> None:
    subject = Subject.named("mochi")
    prompts = ["a red circle", "a"]
    expected = subject.generate(prompts)
    with ExitStack() as stack:
        for module in (each for each in subject.denoiser.modules() if hasattr(each, "processor")):
            assert subject.case.in_one_call is not None
            stack.enter_context(mock.patch.object(module, "processor", subject.case.in_one_call()))
        assert difference(subject.generate(prompts), expected) < 1e-6


def test_an_empty_prompt_blanks_no_other() -> None:
    subject = Subject.named("mochi")
    subject.pipe.register_to_config(force_zeros_for_empty_prompt=True)
    with nag.guide(subject.pipe, ["a blue square", ""], scale=9.0):
        both = subject.generate(["a red circle", "a"])
    with nag.guide(subject.pipe, "a blue square", scale=9.0):
        assert difference(subject.generate("a red circle")[0], both[0]) < 1e-5
