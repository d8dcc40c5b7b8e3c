"""`torch.compile`, as users apply it: what a step does is decided outside, and the denoiser is one graph."""

import pytest
import torch

import nag
from nag.families import family_of
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"


def in_place(subject):
    subject.denoiser.compile(fullgraph=True, backend="eager")


def wrapped(subject):
    subject.wrap(torch.compile(subject.denoiser, fullgraph=True, backend="eager"))


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_compiled_denoiser_is_one_graph_and_gives_the_same(case):
    subject = Subject(case)
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5):
        expected = subject.generate()
    torch.compiler.reset()
    if not family_of(subject.pipe).one_graph:
        # The table says so: it is the denoiser itself that is not one graph.
        in_place(subject)
        with pytest.raises(torch._dynamo.exc.TorchDynamoException):
            subject.generate()
        return
    (wrapped if case.name in ("flux", "sd") else in_place)(subject)
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0, end=0.5) as guidance:
        compiled = subject.generate()
    assert guidance.guided_steps > 0
    assert guidance.plain_steps > 0
    assert difference(compiled, expected) < 1e-5
