"""`torch.compile`, as users apply it: what a step does is decided outside, and the denoiser is one graph."""

import pytest
import torch

import nag
from nag.families import family_of
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


def in_place(subject, whole):
    subject.denoiser.compile(fullgraph=whole, backend="eager")


def wrapped(subject, whole):
    subject.wrap(torch.compile(subject.denoiser, fullgraph=whole, backend="eager"))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_compiled_denoiser_gives_the_same_in_as_few_graphs_as_the_table_says(case):
    subject = Subject(case)
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5):
        expected = subject.generate()
    torch.compiler.reset()
    compiled = family_of(subject.pipe).compiled
    # Where the table says "in parts", it is the plain denoiser already that is not one graph.
    whole = compiled == "one graph"
    (wrapped if case.name in ("flux", "sd") else in_place)(subject, whole)
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5) as guidance:
        compiled = subject.generate()
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert difference(compiled, expected) < 1e-5
